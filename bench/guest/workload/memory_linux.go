package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/guest/pages"
)

// memory is the region whose every page is proved.
type memory struct {
	src      *pages.Source
	region   []byte
	rewrites atomic.Uint64
	journal
}

// reserve is left free for the kernel and ourselves, in bytes.
const reserve = 16 << 20

// fillMemory takes a share of the free memory and writes version 0 to it.
func fillMemory(src *pages.Source, percent int) (*memory, error) {
	free, err := available()
	if err != nil {
		return nil, err
	}
	n := (free - reserve) * int64(percent) / 100 / pages.Size
	if n < 16 {
		return nil, fmt.Errorf("%d bytes of free memory are not enough", free)
	}
	region, err := syscall.Mmap(-1, 0, int(n)*pages.Size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("mapping %d pages: %w", n, err)
	}
	m := &memory{src: src, region: region}
	m.begin(int(n))
	for i := range m.versions {
		src.Fill(m.page(i), uint64(i), 0)
	}
	return m, nil
}

// available is the kernel's MemAvailable in bytes.
func available() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if strings.HasPrefix(lines.Text(), "MemAvailable:") {
			_, err := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemAvailable")
}

func (m *memory) page(i int) []byte { return m.region[i*pages.Size:][:pages.Size] }

// rewrite makes the next version of page i.
func (m *memory) rewrite(i int, sparse bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.versions[i].Full()
	if sparse {
		v = m.versions[i].Sparse()
	}
	m.src.Rewrite(m.page(i), uint64(i), v)
	m.set(i, v)
	m.rewrites.Add(1)
}

// verify compares every page with what it should be. The guest goes on
// rewriting meanwhile, between two pages.
func (m *memory) verify(v *control.Verdict) {
	v.Journal = m.journal.verify(v)
	want := make([]byte, pages.Size)
	for i := range m.versions {
		m.verifyPage(i, want, v)
	}
	v.PagesVerified = int64(len(m.versions))
	v.PagesWrong = v.Lost + v.Stale + v.Swapped + v.Torn + v.Journal
}

func (m *memory) verifyPage(i int, want []byte, v *control.Verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.src.Fill(want, uint64(i), m.versions[i])
	if got := m.page(i); !bytes.Equal(got, want) {
		*fault(v, got, uint64(i), m.versions[i])++
		note(v, "page %d (%v) in version %#x: %s", i, m.src.Kind(uint64(i)), m.versions[i], claim(got))
	}
}

// fault chooses the counter for a page that is not what it should be.
func fault(v *control.Verdict, got []byte, index uint64, version pages.Version) *int64 {
	at, has, ok := pages.Stamp(got)
	switch {
	case bytes.Equal(got, make([]byte, len(got))):
		return &v.Lost
	case ok && at != index:
		return &v.Swapped
	case ok && has < version:
		return &v.Stale
	default:
		return &v.Torn
	}
}

func claim(got []byte) string {
	if at, version, ok := pages.Stamp(got); ok {
		return fmt.Sprintf("claims to be page %d in version %#x", at, version)
	}
	return fmt.Sprintf("begins with %x", got[:16])
}
