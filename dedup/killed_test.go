package dedup

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// killedDir tells the test binary that it is the process to be killed.
const killedDir = "LONGHAUL_TEST_KILLED_DIR"

// A process that is killed while it fills a pool and a store, several times at
// places that nobody chose, leaves content that is right, and that goes on.
func TestKilled(t *testing.T) {
	if path := os.Getenv(killedDir); path != "" {
		fillForEver(t, path)
	}
	path, rounds := t.TempDir(), 4
	if underRace {
		rounds = 2 // the Makefile runs it in full without
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), killedDir+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 3+5*round && lines.Scan(); n++ {
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}
		p, w := openKilled(t, path)
		mem, pages := new(slab), 0
		for _, id := range p.Segments() {
			for slot, h := range p.Read(id, mem) {
				if pages++; h == 0 {
					t.Errorf("round %d: segment %d, slot %d: another page than was written", round, id, slot)
				}
			}
		}
		if pages < 256 {
			t.Errorf("round %d: %d pages are left", round, pages)
		}
		if got := p.Scrub(func(Scrubbed) bool { return true }); got.Damaged != 0 {
			t.Errorf("round %d: pool: %+v", round, got)
		}
		if got := w.stores[0].Scrub(func(Scrubbed) bool { return true }); got.Damaged != 0 || got.Segments == 0 {
			t.Errorf("round %d: store: %+v", round, got)
		}
		w.send(0, guest(1, 600)) // compares
		w.send(1, guest(1, 600))
		w.stop()
		for _, d := range w.dirs {
			d.Close()
		}
	}
}

// openKilled opens what lies in a directory: a pool, and both ends of a store.
func openKilled(t testing.TB, path string) (*Pool, *twin) {
	t.Helper()
	w := &twin{t: t}
	for i := range w.dirs {
		d, err := store.Open(filepath.Join(path, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		w.dirs[i] = d
	}
	p, err := OpenPool(w.dirs[0].Shelf("own"), PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	return p, w
}

// fillForEver fills what lies in a directory, and prints a line now and then.
func fillForEver(t *testing.T, path string) {
	p, w := openKilled(t, path)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	for {
		var items []page.Item
		for i := range 300 {
			b := randomPage(rng)
			items = append(items, fullPage(1, uint64(i), b))
			if _, _, err := p.Add(b); err != nil {
				t.Fatal(err)
			}
		}
		w.send(0, items)
		fmt.Println("more")
	}
}

// While the disk takes nothing a store works on with what is in memory, and a
// pool says so; afterwards both keep what comes.
func TestFullDisk(t *testing.T) {
	w := newTwin(t, LibraryConfig{Memory: 8 << 20})
	block := filepath.Join(w.dirs[0].Path(), sentShelf)
	own := filepath.Join(w.dirs[0].Path(), "own")
	for _, name := range []string{block, own} {
		if err := os.WriteFile(name, []byte("a file where a folder should be"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	items := guest(2, 4000)
	w.send(0, items)
	w.send(0, items)
	w.stores[0].Flush()
	if s := w.stores[0].Stats(); s.Received != 0 || s.Disk != 0 {
		t.Errorf("kept on a disk that takes nothing: %+v", s)
	}
	os.Remove(own)
	p, err := OpenPool(w.dirs[0].Shelf("own"), PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(own, nil, 0o600)
	failed := false
	for _, b := range image(1, 300) {
		_, _, err := p.Add(b)
		failed = failed || err != nil
	}
	if !failed || len(p.Segments()) != 0 {
		t.Errorf("the pool does not say that the disk takes nothing; %d segments", len(p.Segments()))
	}
	os.Remove(own)
	os.Remove(block)
	pages := image(1, 300)
	seed(t, p, pages)
	for i, b := range pages {
		if !has(p, b) {
			t.Fatalf("page %d is not found once the disk takes pages again", i)
		}
	}
	w.send(0, guest(3, 2000))
	w.stores[0].Flush()
	if s := w.stores[0].Stats(); s.Disk == 0 {
		t.Errorf("nothing is kept once the disk takes segments again: %+v", s)
	}
	w.stop()
	w.start()
	w.send(0, guest(3, 2000))
	w.send(1, items)
}
