//go:build linux || darwin

package fold

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/blocktest"
)

// TestReadOnly: what is folded is only read, noise too, so that others may read it
// meanwhile. Here it is in memory to which nobody may write.
func TestReadOnly(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 6))
	b := append(blocktest.Memory(rng, 20_000), blocktest.Noise(rng, 2*plainLeast)...)
	block := readOnly(t, b)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			t.Errorf("folding writes to its input: %v", v)
		}
	}()
	got := make([]byte, len(b))
	if err := New().Expand(got, New().Append(nil, block)); err != nil || !bytes.Equal(got, b) {
		t.Errorf("it does not come back: %v", err)
	}
}

// readOnly is a copy of b in memory that is mapped to be read only.
func readOnly(t *testing.T, b []byte) []byte {
	name := filepath.Join(t.TempDir(), "block")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // the mapping stays
	m, err := syscall.Mmap(int(f.Fd()), 0, len(b), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(m); err != nil {
			t.Error(err)
		}
	})
	return m
}
