package image

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// holes tells whether there is data at off, and where that may change. What
// cannot tell (a block device, some file systems) is all data.
func holes(f *os.File, off int64) (data bool, end int64, err error) {
	at, err := f.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // no data from here on
		return false, math.MaxInt64, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return true, math.MaxInt64, nil
	case err != nil:
		return false, 0, err
	case at > off:
		return false, at, nil
	}
	end, err = f.Seek(off, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) || err == nil && end <= off { // cut or punched since
		return true, off + BlockSize, nil
	}
	return true, end, err
}
