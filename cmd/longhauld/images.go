package main

import (
	"context"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/image"
)

// images opens what can be seeded: files, directories and exports of NBD servers.
type images struct{}

var _ gateway.Images = images{}

// List implements gateway.Images.
func (images) List(ctx context.Context, name string) ([]gateway.ImageFile, error) {
	if strings.HasPrefix(name, "nbd") {
		return []gateway.ImageFile{{Name: name}}, nil
	}
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return []gateway.ImageFile{imageFile(name, st)}, nil
	}
	found, skipped := image.Walk(ctx, name)
	files := make([]gateway.ImageFile, 0, len(found))
	for _, f := range found {
		st, err := os.Stat(f.Name)
		if err != nil {
			continue // removed meanwhile
		}
		files = append(files, imageFile(f.Name, st))
	}
	return files, skipped
}

// imageFile says of a block device nothing but its name: its node keeps its times whatever is
// written to the device.
func imageFile(name string, st fs.FileInfo) gateway.ImageFile {
	if !st.Mode().IsRegular() {
		return gateway.ImageFile{Name: name}
	}
	return gateway.ImageFile{Name: name, Size: st.Size(), Changed: st.ModTime(), Touched: touched(st)}
}

// Open implements gateway.Images.
func (images) Open(ctx context.Context, name string) (gateway.Image, error) {
	im, err := image.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &openImage{im, im.Blocks(0)}, nil
}

// openImage is an image that is read.
type openImage struct {
	*image.Image
	blocks *image.Blocks
}

// From implements gateway.Image.
func (o *openImage) From(done int64) { o.blocks = o.Blocks(done) }

// Next implements gateway.Image.
func (o *openImage) Next(ctx context.Context) ([]byte, int64, error) {
	if o.blocks.Step(ctx) {
		return o.blocks.Data(), o.blocks.Done(), nil
	}
	if err := o.blocks.Err(); err != nil {
		return nil, o.blocks.Done(), err
	}
	return nil, o.blocks.Done(), io.EOF
}

// Read implements gateway.Image.
func (o *openImage) Read() int64 { return o.blocks.Read() }
