package dedup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
)

// fetching is a wire whose decoder asks the sender's store.
func fetching(t testing.TB, from, to *Store, asked *int) *wire {
	t.Helper()
	w := newWire(t, from, to, EncoderConfig{PeerReady: true})
	w.d.Close()
	w.d = to.NewDecoder(DecoderConfig{Fetch: func(p Wanted) ([]byte, error) {
		*asked++
		return from.Pages(p)
	}})
	return w
}

// Pages that have rotten at the receiver come from the sender, each once, and
// are not referred to any more.
func TestFetchRotten(t *testing.T) {
	long(t)
	items := guest(1, 600)
	for name, home := range map[string]bool{"there": false, "home": true} {
		for change, stream := range map[string][2]bool{"same": {}, "changed": {true}} {
			t.Run(name+" "+change, func(t *testing.T) {
				a, b := NewStore(Config{}), NewStore(Config{})
				w := newWire(t, a, b, EncoderConfig{})
				w.add(items...)
				w.close()
				from, to := a, b
				if home {
					from, to = b, a
					plant(a.sent)
				} else {
					plant(b.received)
				}
				again := items
				if stream[0] {
					again = changeSome(items, 1, 1)
				}
				asked := 0
				w = fetching(t, from, to, &asked)
				w.add(again...)
				w.close()
				if asked == 0 {
					t.Fatal("nothing was asked for")
				}
				if got := w.d.Stats().Fetched; got != int64(asked) {
					t.Errorf("%d fetches counted, %d were made", got, asked)
				}
				first := asked
				w = fetching(t, from, to, &asked)
				w.add(again...)
				w.close()
				if asked > first {
					t.Errorf("%d of %d fetches on the next channel", asked-first, asked)
				}
			})
		}
	}
}

// A file that is gone costs a fetch for each segment, not for each page.
func TestFetchLostFiles(t *testing.T) {
	w := newTwin(t, LibraryConfig{Memory: 8 << 20, Disk: 256 << 20})
	items := guest(1, 6000)
	w.send(0, items)
	w.stop()
	w.start()
	os.RemoveAll(filepath.Join(w.dirs[1].Path(), "received"))
	asked := 0
	l := fetching(t, w.stores[0], w.stores[1], &asked)
	l.add(items...)
	l.close()
	if asked == 0 || asked > 40 {
		t.Errorf("%d fetches for the %d segments of %d pages", asked, w.stores[0].Stats().Bytes>>20, len(items))
	}
}

// Pages that have rotten in many segments, and are referred to in turns, cost no
// more fetches for that: a page, and then all of its segment.
func TestFetchInTurns(t *testing.T) {
	long(t)
	items := guest(1, 6*MaxWanted)
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	w.add(items...)
	w.close()
	plant(b.received)
	var turns []page.Item
	for i := range MaxWanted {
		for k := range 6 {
			turns = append(turns, items[k*MaxWanted+i])
		}
	}
	asked := 0
	w = fetching(t, a, b, &asked)
	w.add(turns...)
	w.close()
	segments := int(a.Stats().Bytes >> 20)
	if asked == 0 || asked > 2*segments+2 {
		t.Errorf("%d fetches for %d segments", asked, segments)
	}
}

// What neither end has whole ends the channel.
func TestFetchInVain(t *testing.T) {
	long(t)
	items := guest(1, 300)
	for name, answer := range map[string]func(p Wanted) ([]byte, error){
		"refused":   func(Wanted) ([]byte, error) { return nil, errors.New("not held") },
		"empty":     func(Wanted) ([]byte, error) { return nil, nil },
		"short":     func(Wanted) ([]byte, error) { return make([]byte, 100), nil },
		"too much":  func(p Wanted) ([]byte, error) { return make([]byte, (p.Count+1)*4096), nil },
		"something": func(p Wanted) ([]byte, error) { return make([]byte, p.Count*4096), nil },
	} {
		a, b := NewStore(Config{}), NewStore(Config{})
		w := newWire(t, a, b, EncoderConfig{})
		w.add(items...)
		w.close()
		plant(b.received)
		w = newWire(t, a, b, EncoderConfig{})
		w.d = b.NewDecoder(DecoderConfig{Fetch: answer})
		if err := try(t, w, items); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: error %v, want ErrMismatch", name, err)
		}
	}
}

func TestPagesRefused(t *testing.T) {
	a, b := NewStore(Config{}), NewStore(Config{})
	w := newWire(t, a, b, EncoderConfig{})
	w.add(guest(1, 300)...)
	w.close()
	for _, p := range []Wanted{
		{Store: b.ID(), Theirs: true, Number: 256, Count: 1},
		{Store: a.ID(), Theirs: true, Number: 256, Count: 0},
		{Store: a.ID(), Theirs: true, Number: 256, Count: MaxWanted + 1},
		{Store: a.ID(), Theirs: true, Number: 1 << 62, Count: 1},
		{Store: a.ID(), Theirs: true, Number: 256 * 100, Count: 1},
		{Store: a.ID(), Theirs: false, Number: 256, Count: 1},
	} {
		if b, err := a.Pages(p); err == nil {
			t.Errorf("%+v: %d bytes", p, len(b))
		}
	}
}
