package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/longhaul-project/longhaul/internal/image/qcow2"
)

// maxChain is the most files that an image may consist of. Each costs a file
// descriptor and 128 KiB.
const maxChain = 64

// openFile opens a file and the chain of backing files below it.
func openFile(name string) (*Image, error) {
	top, err := openRaw(func(flag int) (*os.File, error) { return os.OpenFile(name, flag, 0) })
	if err != nil {
		return nil, err
	}
	c := &chain{dir: filepath.Dir(name)}
	l, err := c.open(top, filepath.Base(name), "")
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	im := &Image{format: "raw", source: &disk{layer: l}}
	if _, ok := l.(*overlay); ok {
		im.format = "qcow2"
	}
	return im, nil
}

// chain is the files of one image. All of them lie below the directory of the
// first, as os.Root ensures: names are chosen by whoever made the images.
type chain struct {
	dir    string
	root   *os.Root // of dir; nil until needed
	files  []io.Closer
	unpack qcow2.Unpacker // shared, so that the chain's length does not multiply it
}

// open makes a layer of a file, which it takes. rel is its name in c.dir.
// format is what the file above says it is; "" is to be found out.
func (c *chain) open(file *raw, rel, format string) (layer, error) {
	c.files = append(c.files, file)
	if format == "" {
		var err error
		if format, err = recognise(file.file); err != nil {
			return nil, err
		}
	}
	switch format {
	case "raw":
		return file, nil
	case "qcow2":
	default:
		return nil, fmt.Errorf("format %q is not supported; want raw or qcow2", format)
	}
	h, err := qcow2.ReadHeader(file.file, file.size())
	if err != nil {
		return nil, fmt.Errorf("qcow2: %w", err)
	}
	o := &overlay{Reader: qcow2.NewReader(file.file, file.size(), h, &c.unpack), len: h.Size, backingName: h.Backing.Name, chain: c}
	if h.Backing.Name != "" {
		if o.backing, err = c.follow(rel, h.Backing); err != nil {
			return nil, fmt.Errorf("qcow2: backing file %q, named at byte %d: %w", h.Backing.Name, h.Backing.Offset, err)
		}
	}
	return o, nil
}

// recognise tells the format of a file by its first bytes.
func recognise(f io.ReaderAt) (string, error) {
	var b [4]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if qcow2.Is(b[:n]) {
		return "qcow2", nil
	}
	return "raw", nil
}

// follow opens the backing file of the image above.
func (c *chain) follow(above string, b qcow2.Backing) (layer, error) {
	if len(c.files) == maxChain {
		return nil, fmt.Errorf("more than %d files in a chain", maxChain)
	}
	rel, err := c.below(above, b.Name)
	if err != nil {
		return nil, err
	}
	if c.root == nil {
		if c.root, err = os.OpenRoot(c.dir); err != nil {
			return nil, err
		}
	}
	file, err := openRaw(func(flag int) (*os.File, error) { return c.root.OpenFile(rel, flag, 0) })
	if err != nil {
		return nil, err
	}
	return c.open(file, rel, b.Format)
}

// below gives name relative to c.dir. As with QEMU, it is relative to the
// directory of the image that names it.
func (c *chain) below(above, name string) (string, error) {
	if i := strings.IndexByte(name, ':'); i >= 0 && !strings.Contains(name[:i], "/") {
		return "", errors.New("is no file") // a protocol of QEMU, such as nbd: or json:
	}
	dir, err := filepath.Abs(c.dir)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, filepath.Dir(above), name)
	}
	rel, err := filepath.Rel(dir, name)
	if err != nil {
		return "", err
	}
	if !filepath.IsLocal(rel) {
		return "", fmt.Errorf("is outside of the image's directory %s: seed it by itself", c.dir)
	}
	return rel, nil
}

func (c *chain) close() (err error) {
	for _, f := range c.files {
		err = errors.Join(err, f.Close())
	}
	if c.root != nil {
		err = errors.Join(err, c.root.Close())
	}
	c.unpack.Close()
	return err
}

// overlay is a qcow2 file over what its backing file has.
type overlay struct {
	*qcow2.Reader
	len         int64
	backing     layer // nil if none
	backingName string
	chain       *chain
}

func (o *overlay) size() int64 { return o.len }

func (o *overlay) extent(off int64) (qcow2.Kind, int64, error) {
	e, err := o.Extent(off)
	if err != nil {
		return 0, 0, fmt.Errorf("qcow2: %w", err)
	}
	if e.Kind != qcow2.Absent || o.backing == nil || off >= o.backing.size() {
		return e.Kind, e.End, nil
	}
	kind, end, err := o.backing.extent(off)
	if err != nil {
		err = fmt.Errorf("backing file %q: %w", o.backingName, err)
	}
	return kind, min(e.End, end), err
}

func (o *overlay) read(p []byte, off int64) error {
	e, err := o.Extent(off)
	if err == nil && e.Kind == qcow2.Absent {
		if err := o.backing.read(p, off); err != nil {
			return fmt.Errorf("backing file %q: %w", o.backingName, err)
		}
		return nil
	}
	if err == nil {
		err = o.Read(p, off)
	}
	if err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	return nil
}

// Close closes all files of the image, of which o is the first.
func (o *overlay) Close() error { return o.chain.close() }
