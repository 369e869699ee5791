package vmstream

import (
	"bytes"
	"encoding/binary"

	"github.com/longhaul-project/longhaul/internal/nbd"
	"github.com/longhaul-project/longhaul/internal/page"
)

// First words of a connection (hypervisor-wire.md, section 2).
const (
	mainMagic    = 0x5145564d // "QEVM", migration/qemu-file-types.h QEMU_VM_FILE_MAGIC
	multifdMagic = 0x11223344 // migration/multifd.h MULTIFD_MAGIC
	mainVersion  = 3          // QEMU_VM_FILE_VERSION, since 2009
)

// Sizes in bytes of what opens a connection.
const (
	mainInit    = 8  // magic and version
	multifdInit = 64 // multifd.h MultiFDInit_t
	tlsInit     = 3  // record type and the two bytes of version
)

// Recognise tells from the first bytes of a connection what it is and returns
// a fresh scanner for it, which must be given the same bytes again. enough is
// false while more bytes are needed to tell; 64 always suffice. s is then nil, or
// what the connection is if no more bytes come.
//
// When it recognises a QEMU channel, the bytes that QEMU's destination reads
// with the whole process blocked (8 of the main channel, 64 of a multifd
// channel) are in first, so that they can be handed over in one write.
//
// A connection on which the source stays silent is either a preempt channel or
// one whose server speaks first (NBD); only its first bytes tell these apart.
func Recognise(first []byte) (s page.Scanner, enough bool) {
	if len(first) == 0 {
		return nil, false
	}
	first = first[:min(len(first), multifdInit)]
	// No two of these begin with the same byte, but the last two.
	for _, is := range [...]func([]byte) (page.Scanner, verdict){isMain, isMultifd, isTLS, isRecover, isNBD, isPreempt} {
		if s, v := is(first); v != no {
			return s, v == yes
		}
	}
	return NewOpaque(), true
}

// verdict is the answer to a question about bytes that may not all be there.
type verdict uint8

const (
	no verdict = iota
	yes
	more // cannot tell from so few bytes
)

func isMain(b []byte) (page.Scanner, verdict) {
	if v := prefix(b, mainMagic); v != yes {
		return nil, v
	}
	if len(b) < mainInit {
		return nil, more
	}
	return New(), yes
}

func isMultifd(b []byte) (page.Scanner, verdict) {
	if v := prefix(b, multifdMagic); v != yes {
		return nil, v
	}
	if len(b) < multifdInit {
		return nil, more
	}
	m := NewMultifd()
	m.learn(b[:multifdInit])
	return m, yes
}

// isTLS looks for a TLS record that carries a handshake: RFC 8446, section 5.1.
func isTLS(b []byte) (page.Scanner, verdict) {
	if b[0] != 0x16 {
		return nil, no
	}
	if len(b) < tlsInit {
		return nil, more
	}
	if b[1] != 3 || b[2] > 4 {
		return nil, no
	}
	return &opaque{format: "tls"}, yes
}

// isRecover looks for a COMMAND: after a postcopy pause the source goes on
// without a header (migration.c:postcopy_do_resume).
func isRecover(b []byte) (page.Scanner, verdict) {
	switch {
	case b[0] != elemCommand || len(b) > 1 && b[1] != 0:
		return nil, no
	case len(b) < 3:
		return nil, more
	case b[2] == 0 || b[2] > cmdLast:
		return nil, no
	}
	return NewRecover(nil), yes
}

// isNBD looks for what an NBD client says first. Of less than its flags isPreempt
// wants more.
func isNBD(b []byte) (page.Scanner, verdict) {
	switch may, sure := nbd.MayBeClient(b); {
	case sure:
		return nbd.NewWrites(NewOpaque()), yes
	case may:
		return nbd.NewWrites(NewOpaque()), more
	}
	return nil, no
}

// isPreempt looks for a ram word that names its block: the first thing that a
// preempt channel ever carries.
func isPreempt(b []byte) (page.Scanner, verdict) {
	const wordAndLength = 9
	if b[0] != 0 { // no block is 2^56 bytes long
		return nil, no
	}
	if len(b) < wordAndLength {
		return nil, more
	}
	w := binary.BigEndian.Uint64(b)
	if flags := w & (defaultPageSize - 1); flags != ramPage && flags != ramZero {
		return nil, no
	}
	n := int(b[8])
	name := b[wordAndLength:min(len(b), wordAndLength+n)]
	if n == 0 || !printable(name) {
		return nil, no
	}
	if len(name) < n && len(b) < multifdInit {
		return nil, more
	}
	return NewPreempt(), yes
}

// prefix tells whether b begins with the word magic.
func prefix(b []byte, magic uint32) verdict {
	var m [4]byte
	binary.BigEndian.PutUint32(m[:], magic)
	if n := min(len(b), len(m)); !bytes.Equal(b[:n], m[:n]) {
		return no
	} else if n < len(m) {
		return more
	}
	return yes
}

// printable tells whether b can be the name of a block or a section: both are
// built from device paths and identifiers (hw/core/qdev.c, util/id.c).
func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
