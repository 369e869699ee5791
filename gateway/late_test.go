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

// mirrored is what an NBD client says that writes n bytes from the start of a disk on.
func mirrored(n int) []byte {
	b := []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00\x25\x60\x95\x13\x00\x00\x00\x01")
	b = append(b, make([]byte, 16)...) // cookie and offset
	return append(binary.BigEndian.AppendUint32(b, uint32(n)), make([]byte, n)...)
}
