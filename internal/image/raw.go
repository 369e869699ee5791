package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/longhaul-project/longhaul/internal/image/qcow2"
)

// raw is a file that is the disk: a raw image, an ISO file, a block device.
type raw struct {
	file *os.File
	len  int64 // bytes, when it was opened

	kind       qcow2.Kind // of start to end
	start, end int64
}

// openRaw opens a file through open, which is given flags. Only regular files
// and block devices are disks: reading a pipe could wait for ever.
func openRaw(open func(flag int) (*os.File, error)) (*raw, error) {
	file, err := open(os.O_RDONLY | syscall.O_NONBLOCK) // a pipe does not block the opening
	if err != nil {
		return nil, err
	}
	r := &raw{file: file}
	if err := r.measure(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

func (r *raw) measure() error {
	st, err := r.file.Stat()
	if err != nil {
		return err
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		r.len = st.Size()
	case mode.IsDir():
		return errors.New("is a directory")
	case mode.Type() == fs.ModeDevice:
		r.len, err = r.file.Seek(0, io.SeekEnd)
	default:
		return fmt.Errorf("is neither a file nor a block device (%v)", mode.Type())
	}
	return err
}

func (r *raw) size() int64 { return r.len }

func (r *raw) extent(off int64) (qcow2.Kind, int64, error) {
	if off < r.start || off >= r.end {
		data, end, err := holes(r.file, off)
		if err != nil {
			return 0, 0, fmt.Errorf("looking for holes at byte %d: %w", off, err)
		}
		r.kind, r.start, r.end = qcow2.Zero, off, min(end, r.len)
		if data {
			r.kind = qcow2.Data
		}
	}
	return r.kind, r.end, nil
}

func (r *raw) read(p []byte, off int64) error {
	n, err := r.file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("file ends at byte %d; it had %d when it was opened", off+int64(n), r.len)
	}
	return err
}

func (r *raw) Close() error { return r.file.Close() }
