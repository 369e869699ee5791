package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
)

// noToken has the length of a token.
const noToken = "00000000000000000000000000000000"

// A place is the directory of one destination.
type place struct{ dir string }

func (h *Host) place(token string) place { return place{filepath.Join(h.cfg.RunDir, token)} }

func (p place) qmp() string   { return filepath.Join(p.dir, "qmp") }
func (p place) in() string    { return filepath.Join(p.dir, "in") }
func (p place) log() string   { return filepath.Join(p.dir, "log") }
func (p place) notes() string { return filepath.Join(p.dir, "place.json") }

// notes are what a place knows of its destination.
type notes struct {
	Spec    gateway.Spec   `json:"spec"`
	Process launch.Process `json:"process"`
}

// maxNotes bounds the file, whose largest part is a command line.
const maxNotes = 4 << 20

// write replaces the notes as a whole.
func (p place) write(n notes) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("noting a destination: %w", err)
	}
	tmp := p.notes() + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("noting a destination: %w", err)
	}
	if err := os.Rename(tmp, p.notes()); err != nil {
		return fmt.Errorf("noting a destination: %w", err)
	}
	return nil
}

func (p place) read() (n notes, err error) {
	f, err := os.Open(p.notes())
	if err != nil {
		return n, fmt.Errorf("reading the notes of a destination: %w", err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxNotes)).Decode(&n); err != nil {
		return n, fmt.Errorf("reading %s: %w", p.notes(), err)
	}
	return n, nil
}

// tail is the end of what the process said, in one line.
func (p place) tail() string {
	b, err := os.ReadFile(p.log())
	if err != nil {
		return ""
	}
	const most = 600 // bytes: some lines
	b = b[max(0, len(b)-most):]
	return strings.Join(strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// isToken tells whether a name in the run directory is that of a place.
func isToken(name string) bool {
	return len(name) == len(noToken) && strings.Trim(name, "0123456789abcdef") == ""
}

// remove takes a place away and keeps its log.
func (h *Host) remove(p place) error {
	if n, err := p.read(); err == nil {
		err := os.Rename(p.log(), filepath.Join(h.cfg.RunDir, n.Spec.VM+".log"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			h.log.Warn("keeping the log of a destination", "vm", n.Spec.VM, "err", err)
		}
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("removing a destination's files: %w", err)
	}
	return nil
}

// sweep removes the places whose process has gone, and returns the others.
func (h *Host) sweep() ([]place, error) {
	entries, err := os.ReadDir(h.cfg.RunDir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil, nil // nothing has been started here yet, or not by this user
	}
	if err != nil {
		return nil, fmt.Errorf("reading the run directory: %w: %w", err, gateway.ErrUnavailable)
	}
	var live []place
	for _, e := range entries {
		if !isToken(e.Name()) || !e.IsDir() || h.isReserved(e.Name()) {
			continue
		}
		p := h.place(e.Name())
		if h.abandoned(p) {
			if err := h.remove(p); err != nil {
				h.log.Warn("cleaning the run directory", "err", err)
			}
			continue
		}
		live = append(live, p)
	}
	return live, nil
}

// abandoned tells whether a place's process is known to have ended. A place
// that was left in the middle of a start has no process noted; whoever listens at
// its socket is it.
func (h *Host) abandoned(p place) bool {
	n, err := p.read()
	if err == nil && n.Process.PID != 0 {
		return !n.Process.Alive()
	}
	return !listening(p.qmp())
}
