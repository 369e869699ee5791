package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// A Dir is a store on disk. One process has it open at a time, others may View it.
// All methods are safe for concurrent use, but those on the same segment.
type Dir struct {
	path string
	lock *os.File
	view bool // nothing is changed
}

// ErrView means that a store is only looked at.
var ErrView = errors.New("the content store is only looked at")

// View opens the store in the directory path to look at it. It changes nothing, takes no
// lock and asks for none, so the process that has the store open goes on as if nobody
// looked: segments may come and go meanwhile.
func View(path string) (*Dir, error) {
	if _, err := os.ReadDir(path); err != nil {
		return nil, fmt.Errorf("looking at a content store: %w", err)
	}
	return &Dir{path: path, view: true}, nil
}

// Open opens the store in the directory path, which it makes if need be, and
// removes what a crash has left half written.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("opening a content store: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a content store: %w", err)
	}
	if err := flock(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("content store %s is used by another process: %w", path, err)
	}
	return &Dir{path: path, lock: lock}, nil
}

// Close lets another process open the store.
func (d *Dir) Close() error {
	if d.view {
		return nil
	}
	return d.lock.Close()
}

// Wipe removes all segments.
func (d *Dir) Wipe() error {
	if d.view {
		return ErrView
	}
	all, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("emptying a content store: %w", err)
	}
	for _, e := range all {
		if e.IsDir() {
			err = errors.Join(err, os.RemoveAll(filepath.Join(d.path, e.Name())))
		}
	}
	return err
}

// Path is where the store is.
func (d *Dir) Path() string { return d.path }

// View tells whether the store is only looked at.
func (d *Dir) View() bool { return d.view }

// Shelf is the shelf called name.
func (d *Dir) Shelf(name string) *Shelf {
	return &Shelf{path: filepath.Join(d.path, name), view: d.view, room: func() (free, size int64, err error) { return room(d.path) }}
}

// A Shelf is the segments of one direction.
type Shelf struct {
	path string
	view bool
	room func() (free, size int64, err error) // bytes of the disk
}

// What stays free of the disk, where the journal of moves and the logs of the machine
// may lie as well: content can cross again, an entry of a journal cannot be left out. It
// is the smaller one of keepFree bytes and a part of keepPart of the disk.
const (
	keepFree = 256 << 20
	keepPart = 32
)

// kept is what stays free of a disk of size bytes.
func kept(size int64) int64 { return min(keepFree, size/keepPart) }

// Room tells how many bytes are free on the disk of the directory path, and how many of
// them stay free: a store writes nothing that would take of these.
func Room(path string) (free, keep int64, err error) {
	free, size, err := room(path)
	if err != nil {
		return 0, 0, fmt.Errorf("room on the disk of %s: %w", path, err)
	}
	return free, kept(size), nil
}

// checkRoom refuses n bytes more that would leave too little free.
func (s *Shelf) checkRoom(n int64) error {
	free, size, err := s.room()
	if keep := kept(size); err == nil && free-n < keep {
		return fmt.Errorf("the disk has %d MiB left, and %d MiB of it stay free for others", free>>20, keep>>20)
	}
	return nil // or not known: then the disk itself says when it is full
}

const (
	suffix = ".seg"
	half   = ".new" // a segment that is being written
	folder = 8      // bits of a segment's number that stay within one folder
)

func (s *Shelf) file(id uint64) string {
	return filepath.Join(s.path, fmt.Sprintf("%06x", id>>folder), fmt.Sprintf("%08x", id)+suffix)
}

// Put writes a segment: pages are its pages, one behind the other. A segment of
// the same number is replaced. After an error, of a disk that is all but full say,
// nothing of it is left.
func (s *Shelf) Put(h Header, pages []byte) error {
	if s.view {
		return ErrView
	}
	name := s.file(h.ID)
	err := s.checkRoom(h.FileSize())
	if err == nil {
		err = write(name+half, h.Append(make([]byte, 0, h.Size())), pages)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			err = write(name+half, h.Append(make([]byte, 0, h.Size())), pages)
		}
	}
	if err == nil {
		err = os.Rename(name+half, name)
	}
	if err != nil {
		os.Remove(name + half)
		return fmt.Errorf("writing segment %d: %w", h.ID, err)
	}
	return nil
}

func write(name string, header, pages []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(header); err != nil {
		return err
	}
	_, err = f.Write(pages)
	return err
}

// Load reads all pages of a segment into mem, which is long enough for them. It
// does not look at their checksums: whoever uses a page does.
func (s *Shelf) Load(h *Header, mem []byte) error {
	return s.read(h, 0, mem[:len(h.Sums)*PageSize])
}

// Page reads one page into p.
func (s *Shelf) Page(h *Header, slot int, p []byte) error {
	return s.read(h, slot, p[:PageSize])
}

func (s *Shelf) read(h *Header, slot int, b []byte) error {
	f, err := os.Open(s.file(h.ID))
	if err != nil {
		return fmt.Errorf("reading segment %d: %w", h.ID, err)
	}
	defer f.Close()
	if _, err := f.ReadAt(b, int64(h.Size())+int64(slot)*PageSize); err != nil {
		return fmt.Errorf("reading segment %d: %w", h.ID, err)
	}
	return nil
}

// Remove removes a segment. One that is not there is removed already.
func (s *Shelf) Remove(id uint64) error {
	if s.view {
		return ErrView
	}
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing segment %d: %w", id, err)
	}
	return nil
}

// List reads the headers of all segments, by number. What is no whole segment
// is removed: removed counts the files. What cannot be read now, and what lies beside
// the folders, is left alone: it is in nobody's way. A view leaves all alone and counts
// nothing, for what is no whole segment may be one that is being written.
func (s *Shelf) List() (all []Header, removed int, err error) {
	folders, err := os.ReadDir(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("listing segments: %w", err)
	}
	buf := make([]byte, headerSize(MaxPages))
	for _, f := range folders {
		dir := filepath.Join(s.path, f.Name())
		files, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range files {
			h, err := s.header(filepath.Join(dir, e.Name()), buf)
			switch {
			case err == nil:
				all = append(all, h)
			case errors.Is(err, ErrDamaged) && !s.view:
				removed++
				os.Remove(filepath.Join(dir, e.Name()))
			}
		}
		if len(files) == 0 && !s.view {
			os.Remove(dir)
		}
	}
	slices.SortFunc(all, func(a, b Header) int { return int(min(max(int64(a.ID-b.ID), -1), 1)) })
	return all, removed, nil
}

// Held counts the segments and their pages by the names and lengths of their files, and
// reads none: what is damaged within is counted until somebody looks.
func (s *Shelf) Held() (segments, pages int64, err error) {
	folders, err := os.ReadDir(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("counting segments: %w", err)
	}
	for _, f := range folders {
		files, err := os.ReadDir(filepath.Join(s.path, f.Name()))
		if err != nil {
			continue // it is no folder, or has gone
		}
		for _, e := range files {
			if n := pagesOf(e); n > 0 {
				segments++
				pages += n
			}
		}
	}
	return segments, pages, nil
}

// pagesOf is how many pages a file has by its name and length; 0: it is no segment.
func pagesOf(e fs.DirEntry) int64 {
	if filepath.Ext(e.Name()) != suffix {
		return 0
	}
	st, err := e.Info()
	if err != nil {
		return 0
	}
	const each = sumSize + PageSize
	n := (st.Size() - fixedSize - checkSize) / each
	if n > MaxPages || fixedSize+checkSize+n*each != st.Size() {
		return 0
	}
	return n
}

// header reads the header of a file, and checks that it is in its place and as
// long as it should be.
func (s *Shelf) header(name string, buf []byte) (h Header, err error) {
	base, ok := strings.CutSuffix(filepath.Base(name), suffix)
	id, err := strconv.ParseUint(base, 16, 64)
	if !ok || err != nil || id == 0 || s.file(id) != name {
		return h, fmt.Errorf("%w: no name of a segment: %s", ErrDamaged, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return h, err
	}
	defer f.Close()
	n, err := io.ReadFull(f, buf[:headerSize(MaxPages)])
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return h, err
	}
	if h, _, err = ParseHeader(buf[:n]); err != nil {
		return h, err
	}
	st, err := f.Stat()
	if err != nil {
		return h, err
	}
	if h.ID != id || st.Size() != h.FileSize() {
		return h, fmt.Errorf("%w: segment %d of %d bytes in %s", ErrDamaged, h.ID, st.Size(), name)
	}
	return h, nil
}

// Verify reads a segment and returns the slots whose pages are not what was
// written. A header that is not, which List would not take, is an error. mem is scratch
// memory for a whole segment.
func (s *Shelf) Verify(h *Header, mem []byte) (bad []int, err error) {
	there, err := s.header(s.file(h.ID), mem)
	if err != nil {
		return nil, fmt.Errorf("reading segment %d: %w", h.ID, err)
	}
	if there.Birth != h.Birth || !slices.Equal(there.Sums, h.Sums) {
		return nil, fmt.Errorf("%w: segment %d has the header of another", ErrDamaged, h.ID)
	}
	if err := s.Load(h, mem); err != nil {
		return nil, err
	}
	for i, sum := range h.Sums {
		if xxhash.Sum64(mem[i*PageSize:(i+1)*PageSize]) != sum {
			bad = append(bad, i)
		}
	}
	return bad, nil
}
