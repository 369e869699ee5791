package gateway

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

// TestLate: a silent connection that turns out to be a preempt channel carries
// pages, any other one bytes.
func TestLate(t *testing.T) {
	formats := Formats{Recognise: vmstream.Recognise, Opaque: vmstream.NewOpaque}
	word := func(flags uint64) []byte { return binary.BigEndian.AppendUint64(nil, 0x3000|flags) }
	const pageFlag, eosFlag = 0x08, 0x10 // migration/ram.c RAM_SAVE_FLAG_PAGE, _EOS
	preempt := slices.Concat(word(pageFlag), []byte("\x06pc.ram"), make([]byte, page.Size), word(eosFlag))

	l := &late{formats: formats}
	if f := l.Facts(); f.Format != "opaque" {
		t.Errorf("before the first byte it is %s", f.Format)
	}
	if it, n := l.Next(preempt[:8]); n != 0 {
		t.Fatalf("item of kind %d from a word alone", it.Kind)
	}
	it, n := l.Next(preempt)
	if it.Kind != page.Full || n != 8+7+page.Size || it.Mark&page.Flush == 0 {
		t.Errorf("item of kind %d, %d bytes, mark %d", it.Kind, n, it.Mark)
	}
	if f := l.Facts(); f.Format != rolePreempt || f.Pages != 1 {
		t.Errorf("facts %+v", f)
	}

	l = &late{formats: formats}
	hello := slices.Concat([]byte{0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1}, make([]byte, 16), []byte{2}, make([]byte, 39)) // migration/multifd.h MultiFDInit_t
	if it, n := l.Next(hello[:20]); n != 0 {
		t.Fatalf("item of kind %d from a part of a multifd channel's first words", it.Kind)
	}
	if it, n := l.Next(hello); n != len(hello) {
		t.Errorf("item of kind %d and %d bytes from a multifd channel's first words", it.Kind, n)
	}
	if f := l.Facts(); f.Format != roleMultifd {
		t.Errorf("a multifd channel is %s", f.Format)
	}

	for name, first := range map[string][]byte{
		"NBD": {0, 0, 0, 3}, "SSH": []byte("SSH-2.0-test\r\n"), "a main channel": []byte("QEVM\x00\x00\x00\x03"), "nothing": nil,
	} {
		disks := 0
		l := &late{formats: formats, disk: func() { disks++ }}
		defer func() {
			if disks > 1 || (disks == 1) != (name == "NBD") {
				t.Errorf("%s: taken for a disk %d times", name, disks)
			}
		}()
		if it, n := l.Next(first); n != 0 {
			t.Errorf("%s: item of kind %d at once", name, it.Kind)
		}
		if it := l.Cut(first); it.Kind != page.Opaque || len(it.Data) != len(first) {
			t.Errorf("%s: item of kind %d, %d bytes", name, it.Kind, len(it.Data))
		}
		if name == "NBD" { // a client waits after its flags
			told := mirrored(2 * page.Size)[len(first):]
			for len(told) > 0 {
				it, n := l.Next(told)
				if n == 0 || it.Len() != n {
					t.Fatalf("item of %d bytes, n is %d, of %d", it.Len(), n, len(told))
				}
				told = told[n:]
			}
			if f := l.Facts(); f.Lost != "" || f.Pages != 2 {
				t.Errorf("after a client's flags alone: %+v", f)
			}
			continue
		}
		if it := l.Cut(preempt); it.Kind == page.Full {
			t.Errorf("%s: becomes a preempt channel", name)
		}
	}
}

// TestLateDisk: of a disk larger than is remembered the blocks of the first pieces that
// are written have addresses, also when they are written again; all are pages.
func TestLateDisk(t *testing.T) {
	l := &late{formats: Formats{Recognise: vmstream.Recognise, Opaque: vmstream.NewOpaque}}
	said := mirrored(0)
	write := func(piece uint64) {
		said = append(said, "\x25\x60\x95\x13\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"...)
		said = binary.BigEndian.AppendUint64(said, piece*diskPiece+diskPiece/2)
		said = binary.BigEndian.AppendUint32(said, page.Size)
		said = append(said, make([]byte, page.Size)...)
	}
	for piece := range uint64(maxPieces) {
		write(2 * piece)
	}
	write(1)
	write(2)
	write(1 << 20)
	var at []page.Addr
	for len(said) > 0 {
		it, n := l.Next(said)
		if n == 0 {
			t.Fatalf("no item in %d bytes", len(said))
		}
		if it.Kind == page.Full {
			at = append(at, it.Addr)
		}
		said = said[n:]
	}
	if len(at) != maxPieces+3 {
		t.Fatalf("%d pages, want %d", len(at), maxPieces+3)
	}
	known := page.Addr{Space: 1, Offset: 2*diskPiece + diskPiece/2}
	if at[1] != known || at[maxPieces-1].Space != 1 || at[maxPieces] != (page.Addr{}) || at[maxPieces+1] != known || at[maxPieces+2] != (page.Addr{}) {
		t.Errorf("addresses %+v and, at the end, %+v", at[1], at[maxPieces-1:])
	}
}

// mirrored is what an NBD client says that writes n bytes from the start of a disk on.
func mirrored(n int) []byte {
	b := []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00\x25\x60\x95\x13\x00\x00\x00\x01")
	b = append(b, make([]byte, 16)...) // cookie and offset
	return append(binary.BigEndian.AppendUint32(b, uint32(n)), make([]byte, n)...)
}
