package hvtest

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/page"
)

// romSize is the size in bytes of the fake's second memory block, pc.rom.
const romSize = 4 * page.Size

// Guest is a VM that a FakeHost runs. Only the Name is needed.
type Guest struct {
	Name string
	UUID string // derived from the name if empty

	// Memory in bytes, rounded up to pages. Zero means 1 MiB.
	Memory int64

	// Rounds is the number of passes over memory after which a migration
	// converges. Zero means 3; -1 means not before SetDowntime raises the limit.
	Rounds int

	// Dirty is the number of pages that the guest changes in each round, if
	// it executes. Zero means a sixteenth of its memory.
	Dirty int

	// Pace is the least time that a round takes. Zero means 1 ms.
	Pace time.Duration

	NICs  []gateway.NIC
	Disks []gateway.Disk
}

func (g Guest) withDefaults() Guest {
	if g.UUID == "" {
		h := fnv.New64a()
		h.Write([]byte(g.Name))
		g.UUID = fmt.Sprintf("00000000-0000-4000-8000-%012x", h.Sum64()&(1<<48-1))
	}
	g.Memory = cmp.Or(g.Memory, 1<<20)
	g.Memory = (g.Memory + page.Size - 1) / page.Size * page.Size
	g.Rounds = cmp.Or(g.Rounds, 3)
	g.Dirty = min(cmp.Or(g.Dirty, int(g.Memory/page.Size/16)), int(g.Memory/page.Size))
	g.Pace = cmp.Or(g.Pace, time.Millisecond)
	return g
}

// fakeProgram is the first word of a fake's command line.
const fakeProgram = "fake-hypervisor"

// args writes what a destination must know into a command line, as QEMU has it.
func (g Guest) args() []string {
	return []string{
		fakeProgram, "-name", g.Name, "-uuid", g.UUID, "-m", strconv.FormatInt(g.Memory, 10),
		"-rounds", strconv.Itoa(g.Rounds), "-dirty", strconv.Itoa(g.Dirty), "-pace", g.Pace.String(),
	}
}

// guestOf reads a spec that travelled.
func guestOf(spec gateway.Spec) (Guest, error) {
	if len(spec.Args) == 0 || spec.Args[0] != fakeProgram {
		return Guest{}, fmt.Errorf("command line %q: %w", strings.Join(spec.Args, " "), gateway.ErrInvalid)
	}
	g := Guest{Name: spec.VM, UUID: spec.UUID, Memory: spec.Memory, NICs: spec.NICs, Disks: spec.Disks}
	for i := 1; i+1 < len(spec.Args); i += 2 {
		var err error
		switch v := spec.Args[i+1]; spec.Args[i] {
		case "-rounds":
			g.Rounds, err = strconv.Atoi(v)
		case "-dirty":
			g.Dirty, err = strconv.Atoi(v)
		case "-pace":
			g.Pace, err = time.ParseDuration(v)
		}
		if err != nil {
			return Guest{}, fmt.Errorf("argument %s: %w", spec.Args[i], gateway.ErrInvalid)
		}
	}
	return g, nil
}

// blocks are the guest's memory blocks, in the order of the stream; together
// they cover its memory.
func (g Guest) blocks() []block {
	return []block{{"pc.ram", 0, g.Memory}, {"pc.rom", g.Memory, romSize}}
}

// A block is one named span of a guest's memory.
type block struct {
	name  string
	start int64 // in the fake's memory, bytes
	size  int64
}

// memory is what the guest holds: all blocks, one after the other.
type memory struct {
	bytes []byte
	dirty []bool // by page; nil while no migration looks
	rng   *rand.Rand
}

// newMemory fills a guest's memory: a quarter of the pages is zero, a half
// like text, a quarter like noise. The content depends on the name alone.
func newMemory(g Guest) *memory {
	h := fnv.New64a()
	h.Write([]byte(g.Name))
	m := &memory{bytes: make([]byte, g.Memory+romSize), rng: rand.New(rand.NewPCG(h.Sum64(), 1))}
	for n := range int(g.Memory / page.Size) {
		p := m.page(n)
		switch n % 4 {
		case 0: // stays zero
		case 1:
			for i := 0; i < len(p); i += 8 {
				binary.BigEndian.PutUint64(p[i:], m.rng.Uint64())
			}
		default:
			line := fmt.Sprintf("%s: page %d has nothing new to say\n", g.Name, n)
			for i := 0; i < len(p); i += copy(p[i:], line) {
			}
		}
	}
	return m
}

func (m *memory) page(n int) []byte { return m.bytes[n*page.Size : (n+1)*page.Size] }

// touch changes a few bytes in count pages.
func (m *memory) touch(count, pages int) {
	for range count {
		n := m.rng.IntN(pages)
		binary.BigEndian.PutUint64(m.page(n)[m.rng.IntN(page.Size/8)*8:], m.rng.Uint64())
		if m.dirty != nil {
			m.dirty[n] = true
		}
	}
}

// track begins to note which pages change, with all of them as changed.
func (m *memory) track() {
	m.dirty = make([]bool, len(m.bytes)/page.Size)
	for i := range m.dirty {
		m.dirty[i] = true
	}
}

// takeDirty returns the pages that have changed and forgets that they have.
func (m *memory) takeDirty() []int {
	var pages []int
	for n, dirty := range m.dirty {
		if dirty {
			pages = append(pages, n)
			m.dirty[n] = false
		}
	}
	return pages
}

func (m *memory) digest() [32]byte { return sha256.Sum256(m.bytes) }
