package gateway

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
)

// What was read of an image is remembered: whole, or up to where its reading was cut. Nobody
// reads that again, by hand or for a directory of the config, as long as the image is what it
// was and the pool has the pages. A memory that is lost or wrong costs reading or, where it
// says too much, pages that cross in a move: no stream is ever built by it.

// seenName is the file of what was seen. It lies with the pool: who loses the one
// has lost the other.
const seenName = "seen.json"

// maxSeen is how many images are remembered: as many as a directory may have.
const maxSeen = 1 << 20

// resumeFor is how long the reading of an image goes on where it was cut if nobody can tell
// whether it has changed, as of an export of an NBD server or a block device: the one reading then
// took that long. Once read whole, it is read anew when somebody asks for it.
const resumeFor = 24 * time.Hour

// noteEvery is how often what was read is noted on disk while reading goes on: what a
// crash costs is read again. It is seldomer when noting takes long, by noteShare.
const (
	noteEvery = 10 * time.Second
	noteShare = 50
)

// seenImages is the memory. What is noted in it lies in segments of the pool that are complete.
type seenImages struct {
	file memo
	pool *dedup.Pool

	mu  sync.Mutex // guards what follows
	all map[string]seenFile
}

// seenFile is an image as it was when it was read.
type seenFile struct {
	Size     int64     `json:"size"`
	Changed  time.Time `json:"changed"`
	Touched  time.Time `json:"touched"`
	Noted    time.Time `json:"noted"`
	Disk     int64     `json:"disk"` // its bytes; those of a file may be fewer
	Done     int64     `json:"done"` // of Disk, that were read
	Segments []span    `json:"segments"`
}

// is tells whether nobody has touched a file since, as far as that is known.
func (s seenFile) is(f ImageFile) bool {
	return s.Size == f.Size && s.Changed.Equal(f.Changed) && s.Touched.Equal(f.Touched)
}

func (s seenFile) whole() bool { return s.Done == s.Disk }

// sane tells whether it may have been written by us.
func (s seenFile) sane() bool { return 0 <= s.Done && s.Done <= s.Disk }

// span is the segments of the pool from the first number to the second; the third tells
// them from others with these numbers: it is the XOR of their births.
type span [3]uint64

// sumOfSpans changes when these do; their order does not matter.
func sumOfSpans(all []span) (sum uint64) {
	for _, s := range all {
		h := fnv.New64a()
		_ = binary.Write(h, binary.LittleEndian, s) // a hash takes all
		sum += h.Sum64()
	}
	return sum
}

// openSeen reads what an earlier run has noted.
func openSeen(dir string, pool *dedup.Pool) (*seenImages, error) {
	m := &seenImages{file: memo{filepath.Join(dir, seenName)}, pool: pool}
	err := m.file.read(&m.all)
	if err != nil || m.all == nil { // as "null" would have it
		m.all = map[string]seenFile{}
	}
	maps.DeleteFunc(m.all, func(_ string, s seenFile) bool { return !s.sane() })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return m, err
}

// get is what is known of an image by its name.
func (m *seenImages) get(name string) (s seenFile, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok = m.all[name]
	return s, ok
}

// known is what of an image need not be read again, or ok is false. All its segments are there.
func (m *seenImages) known(f ImageFile, shelf *shelf) (was seenFile, ok bool) {
	was, ok = m.get(f.Name)
	if !ok || was.Done == 0 || !was.is(f) || !shelf.has(was.Segments) {
		return seenFile{}, false
	}
	if age := time.Since(was.Noted); f.Changed.IsZero() && (was.whole() || age < 0 || age > resumeFor) {
		return seenFile{}, false
	}
	return was, true
}

// note remembers an image.
func (m *seenImages) note(name string, s seenFile) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[name] = s
}

// forget drops what is known of images below a name, or of that name, which are not there.
func (m *seenImages) forget(name string, there map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.all, func(n string, _ seenFile) bool { return below(n, name) && !there[n] })
}

// below tells whether an image is a source, or a file in it.
func below(name, source string) bool {
	return name == source || strings.HasPrefix(name, filepath.Clean(source)+string(filepath.Separator))
}

// in lists the segments of the images in these directories, and counts the images.
func (m *seenImages) in(dirs []string) (all []span, images int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, s := range m.all {
		if slices.ContainsFunc(dirs, func(dir string) bool { return below(name, dir) }) {
			all = append(all, s.Segments...)
			images++
		}
	}
	return all, images
}

// save writes all to the disk. One goroutine at a time may, which is whose turn it is to read.
func (m *seenImages) save() error {
	m.mu.Lock()
	m.trim(maxSeen)
	all := maps.Clone(m.all)
	m.mu.Unlock()
	return m.file.write(all)
}

// trim forgets what was noted longest ago, but for so many images. The caller holds mu.
func (m *seenImages) trim(most int) {
	if len(m.all) <= most {
		return
	}
	names := slices.SortedFunc(maps.Keys(m.all), func(a, b string) int { return m.all[a].Noted.Compare(m.all[b].Noted) })
	for _, name := range names[:len(names)-most] {
		delete(m.all, name)
	}
}

// shelf is the segments that the pool had at one time.
type shelf struct {
	ids, births []uint64 // ascending
	at          uint64   // generation of the pool
}

func (m *seenImages) shelf() *shelf {
	s := &shelf{at: m.pool.Generation()}
	s.ids, s.births = m.pool.Births()
	return s
}

// find is where the segments from the first number to the last stand.
func (s *shelf) find(first, last uint64) (from, to int) {
	from, _ = slices.BinarySearch(s.ids, first)
	to, found := slices.BinarySearch(s.ids, last)
	if found {
		to++
	}
	return from, max(from, to)
}

// missing counts the segments of a span that are not there: all, if others have their numbers.
func (s *shelf) missing(of span) uint64 {
	if of[1] < of[0] || of[1]-of[0] >= maxSeen*maxSeen { // no pool has had that many
		return maxSeen * maxSeen
	}
	n := of[1] - of[0] + 1
	from, to := s.find(of[0], of[1])
	if uint64(to-from) == n && s.birth(from, to) != of[2] {
		return n
	}
	return n - uint64(to-from)
}

func (s *shelf) birth(from, to int) (all uint64) {
	for _, b := range s.births[from:to] {
		all ^= b
	}
	return all
}

// has tells whether all segments are there.
func (s *shelf) has(all []span) bool {
	return !slices.ContainsFunc(all, func(of span) bool { return s.missing(of) > 0 })
}

// list adds the segments of these spans that are there to a set.
func (s *shelf) list(all []span, set map[uint64]bool) {
	for _, of := range all {
		from, to := s.find(of[0], of[1])
		for _, id := range s.ids[from:to] {
			set[id] = true
		}
	}
}

// spans is a set of segments in few words.
func (s *shelf) spans(set map[uint64]bool) (all []span) {
	for _, id := range slices.Sorted(maps.Keys(set)) {
		birth := uint64(0) // of one that has gone
		if i, found := slices.BinarySearch(s.ids, id); found {
			birth = s.births[i]
		}
		if n := len(all); n > 0 && all[n-1][1]+1 == id {
			all[n-1][1], all[n-1][2] = id, all[n-1][2]^birth
			continue
		}
		all = append(all, span{id, id, birth})
	}
	return all
}

// lost tells whether segments are not there, though the pool has room for so many more: then
// they did not make room for others. It takes from the room what comes again.
func (s *shelf) lost(all []span, room *uint64) bool {
	missing := uint64(0)
	for _, of := range all {
		missing = min(missing+s.missing(of), max(*room, 1))
	}
	if missing == 0 || missing >= *room {
		return false
	}
	*room -= missing
	return true
}
