package inspect

import (
	"bufio"
	"compress/gzip"
	"io"
)

// plain looks for the two bytes with which gzip begins (RFC 1952, section
// 2.3.1), which begin no stream of QEMU, and reads through gzip if they are
// there.
func plain(r io.Reader) (_ io.Reader, zipped bool, err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, _ := b.Peek(2) // an error comes again when it is read
	if string(magic) != "\x1f\x8b" {
		return b, false, nil
	}
	z, err := gzip.NewReader(b)
	return z, true, err
}
