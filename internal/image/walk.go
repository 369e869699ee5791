package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// maxFiles is the most files that Walk lists: about 200 MiB of names. A
// directory with more of them holds something else than images.
const maxFiles = 1 << 20

// File is a file that may be an image.
type File struct {
	Name string // path, with the directory that was walked
	Size int64  // of the file in bytes, which is not that of the disk
}

// Walk lists the files to seed below a directory, sorted by name within each
// directory: regular files of at least BlockSize bytes. Symbolic links are not
// followed, dir itself excepted. What cannot be read is left out of the list
// and told by the error, so both may be of use.
func Walk(ctx context.Context, dir string) ([]File, error) {
	root := filepath.Clean(dir) + string(filepath.Separator) // so that a link is followed here
	var files []File
	var skipped error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && d.Type().IsRegular() {
			files, err = add(files, path, d)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != root: // removed meanwhile
		case errors.Is(err, errTooMany):
			return err
		case err != nil && skipped == nil:
			skipped = err // the first stands for all: there may be many
		}
		return nil
	})
	if err = errors.Join(err, skipped); err != nil {
		err = fmt.Errorf("images in %s: %w", dir, err)
	}
	return files, err
}

var errTooMany = fmt.Errorf("more than %d files", maxFiles)

func add(files []File, path string, d fs.DirEntry) ([]File, error) {
	st, err := d.Info()
	switch {
	case err != nil || st.Size() < BlockSize:
		return files, err
	case len(files) == maxFiles:
		return files, errTooMany
	}
	return append(files, File{path, st.Size()}), nil
}
