package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

// memory returns a copy of a stopped VM's memory.
func memory(t *testing.T, m *monitor, dir string) []byte {
	t.Helper()
	file := filepath.Join(dir, "memory")
	defer os.Remove(file)
	err := m.Execute(t.Context(), "pmemsave", map[string]any{"val": 0, "size": guestMemory << 10, "filename": file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// monitorOf opens the monitor of a source or sink once more.
func monitorOf(t *testing.T, h *handle) *monitor {
	t.Helper()
	m, err := h.monitor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// busyGuest starts a guest that changes its memory all the time.
func busyGuest(t *testing.T, dir string) {
	t.Helper()
	sector, err := os.ReadFile("testdata/dirty.img")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	// SeaBIOS does not read a disk of one sector.
	if err := os.WriteFile(image, append(sector, make([]byte, 1<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	startQEMU(t, dir, "vm1", "-drive", "file="+image+",format=raw,if=ide,snapshot=on")
}

// TestMemoryArrives moves a guest that changes its memory, and compares.
func TestMemoryArrives(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	for _, channels := range []int{0, 2} {
		t.Run(fmt.Sprintf("channels=%d", channels), func(t *testing.T) {
			dir := shortDir(t)
			a, b := newHost(t, dir, "a", nil), newHost(t, dir, "b", nil)
			busyGuest(t, filepath.Join(dir, "a"))
			awaitBusy(t, a)
			s := spec(t, a)
			s.Channels = channels
			sk, err := b.Prepare(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			defer sk.Close()
			sc, err := a.Source(t.Context(), "vm1")
			if err != nil {
				t.Fatal(err)
			}
			defer sc.Close()
			// Straight, without a gateway: the sink's socket is the leg.
			params := gateway.MoveParams{Downtime: 20 * time.Second, Channels: channels}
			if err := sc.Start(t.Context(), "unix:"+sk.(*sink).place.in(), params); err != nil {
				t.Fatal(err)
			}
			await(t, sc.Events(), "pre-switchover")
			if err := sc.Continue(t.Context()); err != nil {
				t.Fatal(err)
			}
			await(t, sk.Events(), "completed")
			was := memory(t, monitorOf(t, sc.(*source).handle), dir)
			is := memory(t, monitorOf(t, sk.(*sink).handle), dir)
			if !bytes.Equal(was, is) {
				t.Errorf("memory differs at %d of %d pages", differing(was, is), len(was)/4096)
			}
			if n := busyPages(was); n < 1000 {
				t.Errorf("the guest has changed %d pages", n)
			}
			if err := sk.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := sc.Release(t.Context()); err != nil {
				t.Error(err)
			}
			awaitBusy(t, b) // it goes on there
			checkClean(t, dir, "b")
		})
	}
}

func differing(a, b []byte) (n int) {
	for i := 0; i+4096 <= min(len(a), len(b)); i += 4096 {
		if !bytes.Equal(a[i:i+4096], b[i:i+4096]) {
			n++
		}
	}
	return n
}

// busyPages counts the pages that testdata/dirty.S has changed: it notes the
// page's address in each.
func busyPages(mem []byte) (n int) {
	for at := 1 << 20; at < 9<<20; at += 4096 {
		if got := int(mem[at+16]) | int(mem[at+17])<<8 | int(mem[at+18])<<16 | int(mem[at+19])<<24; got == at {
			n++
		}
	}
	return n
}

// awaitBusy waits until the guest changes its memory.
func awaitBusy(t *testing.T, h *Host) {
	t.Helper()
	src, err := h.Source(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	m := monitorOf(t, src.(*source).handle)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	first := ""
	for deadline := time.Now().Add(2 * time.Minute); ; <-tick.C {
		text, err := m.HumanMonitor(t.Context(), "xp /1wx 0x100008")
		if err != nil {
			t.Fatal(err)
		}
		if first != "" && text != first && !strings.Contains(first, "0x00000000") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the guest does nothing: %q", text)
		}
		first = text
	}
}

// await reads events until a status comes.
func await(t *testing.T, events <-chan gateway.Event, status string) {
	t.Helper()
	timeout := time.After(3 * time.Minute)
	for {
		select {
		case ev, ok := <-events:
			if ev.Text == status && ev.Kind == gateway.EventStatus {
				return
			}
			if !ok || ev.Text == "failed" {
				t.Fatalf("no %s: %+v", status, ev)
			}
		case <-timeout:
			t.Fatalf("no %s", status)
		}
	}
}
