package gateway_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// mirror is what QEMU's NBD client says while it copies a disk: flags, the option
// GO, and requests to write 256 KiB each (hypervisor-wire.md, section 6).
func mirror(disk []byte) []byte {
	const span = 256 << 10
	b := []byte{0, 0, 0, 3}
	b = append(b, "IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00"...)
	for off := 0; off < len(disk); off += span {
		data := disk[off:min(off+span, len(disk))]
		b = binary.BigEndian.AppendUint32(b, 0x25609513)
		b = append(b, 0, 0, 0, 1)
		b = binary.BigEndian.AppendUint64(b, uint64(off/span))
		b = binary.BigEndian.AppendUint64(b, uint64(off))
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	return b
}

// copyDisk sends a disk through a forward, to a server that speaks first.
// The client's flags arrive alone.
func copyDisk(t *testing.T, listen string, out net.Listener, disk []byte) {
	t.Helper()
	c := dialForward(t, listen)
	said := mirror(disk)
	far := accept(t, out) // once the client has been silent for a while
	greeting := "NBDMAGICIHAVEOPT\x00\x03"
	if _, err := io.WriteString(far, greeting); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, len(greeting))
	if _, err := io.ReadFull(c, heard); err != nil || string(heard) != greeting {
		t.Fatalf("the client hears %q, %v", heard, err)
	}
	if _, err := c.Write(said[:4]); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4, len(said)+1)
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatalf("of the client's flags %v", err)
	}
	done := make(chan error, 1) // one error
	go func() {
		_, err := c.Write(said[4:])
		c.CloseWrite()
		done <- err
	}()
	rest, err := io.ReadAll(far)
	got = append(got, rest...)
	if err != nil || !bytes.Equal(got, said) {
		t.Fatalf("%d bytes came of %d: %v", len(got), len(said), err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	far.Close()
	c.Close()
}

// TestDiskComesHome: what a VM has read from its disk since it moved costs
// references when it moves home. The disk has crossed as well, so its blocks are known
// at both ends, although none of them was in the VM's memory then.
func TestDiskComesHome(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	b.host.Add(hvtest.Guest{Name: "reader", Memory: 8 << 20, Dirty: 8})
	disk := b.host.Memory("reader") // all that it holds it has read
	listen, out := forwardTo(t, a, b, "auto")
	copyDisk(t, listen, out, disk)
	awaitConns(t, a, "auto", 0)

	j, err := b.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "reader", To: "a"})
	if err != nil {
		t.Fatal(err)
	}
	end := b.wait(j.ID)
	if end.State != gateway.JobDone {
		t.Fatalf("%s: %s", end.State, end.Error)
	}
	ledger.Check(t, "reader", "host-a")
	r := end.Report
	if blocks := r.Pages - r.ZeroPages; blocks < 1500 || r.Refs*100 < blocks*95 || r.WireBytes*50 > r.LogicalBytes {
		t.Errorf("of %d pages with content, all blocks of a disk that has crossed but for some that changed, %d went as references; %d bytes for %d",
			blocks, r.Refs, r.WireBytes, r.LogicalBytes)
	}
}
