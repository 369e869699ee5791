package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Types of header extensions.
const (
	extensionEnd      = 0
	extensionFormat   = 0xe2792aca
	extensionFeatures = 0x6803f857
)

// extensions are those parts of the header extensions that are looked at. They
// borrow from the header's bytes.
type extensions struct {
	format   []byte // of the backing file
	features []byte // the feature name table
}

// readExtensions walks the extensions from b[from:] on. An image may end them
// by its first cluster's end instead of by a mark.
func readExtensions(b []byte, from int) (ext extensions, err error) {
	for from+8 <= len(b) {
		kind := binary.BigEndian.Uint32(b[from:])
		n := int64(binary.BigEndian.Uint32(b[from+4:]))
		if kind == extensionEnd {
			return ext, nil
		}
		data := b[from+8:]
		if n > int64(len(data)) {
			return ext, at(int64(from), "header extension %#08x of %d bytes reaches behind byte %d", kind, n, len(b))
		}
		data = data[:n]
		switch kind {
		case extensionFormat:
			ext.format = data
		case extensionFeatures:
			ext.features = data
		}
		from += 8 + int(n+7)&^7
	}
	return ext, nil
}

// featureName looks an incompatible feature up in the table that the image
// brings along for this purpose.
func featureName(table []byte, bit int) string {
	for ; len(table) >= 48; table = table[48:] {
		if table[0] == 0 && int(table[1]) == bit {
			name, _, _ := bytes.Cut(table[2:48], []byte{0})
			return fmt.Sprintf("%q", name)
		}
	}
	return "no name"
}
