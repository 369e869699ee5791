package wanem

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// A Child is a WAN in a process of its own, which nothing else delays: in a
// busy process, a thread that wakes on time may still wait for one of the Go
// scheduler's places, whose holder the kernel has put aside.
//
// Parent and child speak JSON lines over the child's standard input and output,
// one answer for each request; the TAPs are file descriptors 3 and 4. The child
// ends when its input does.
type Child struct {
	cmd *exec.Cmd

	mu  sync.Mutex // held for a whole exchange
	in  io.WriteCloser
	out *bufio.Scanner
}

var _ Emulator = (*Child)(nil)

// childConfig is the first line to a child.
type childConfig struct {
	AB   Profile `json:"ab"`
	BA   Profile `json:"ba"`
	Seed uint64  `json:"seed"`
	MTU  int     `json:"mtu"`
}

type childRequest struct {
	Op        string    `json:"op"` // set, cut, heal, counters
	Direction Direction `json:"direction"`
	Profile   *Profile  `json:"profile,omitempty"`
}

type childReply struct {
	Error    string    `json:"error,omitempty"`
	Counters *Counters `json:"counters,omitempty"`
}

// maxLine bounds a line in bytes: counters of MaxFlows flows.
const maxLine = 2 << 20

// StartChild runs argv, a program that calls Serve, with the TAPs, which stay
// the caller's. Close ends it.
func StartChild(argv []string, a, b *Tap, c Config) (*Child, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.ExtraFiles = []*os.File{a.file, b.file}
	cmd.Stderr = os.Stderr
	// Places enough in the Go scheduler for both directions at any time.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=6")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // Ctrl-C is for the parent
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the wan emulator: %w", err)
	}
	child := &Child{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	child.out.Buffer(nil, maxLine)
	if _, err := child.exchange(childConfig{c.AB, c.BA, c.Seed, c.MTU}); err != nil {
		return nil, errors.Join(err, child.Close())
	}
	return child, nil
}

// PID of the child.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Close ends the child and waits for it.
func (c *Child) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.in.Close(), c.cmd.Wait())
}

// Set changes one direction.
func (c *Child) Set(d Direction, p Profile) error {
	_, err := c.exchange(childRequest{Op: "set", Direction: d, Profile: &p})
	return err
}

// Cut breaks one direction.
func (c *Child) Cut(d Direction) error {
	_, err := c.exchange(childRequest{Op: "cut", Direction: d})
	return err
}

// Heal mends one direction.
func (c *Child) Heal(d Direction) error {
	_, err := c.exchange(childRequest{Op: "heal", Direction: d})
	return err
}

// Counters of one direction.
func (c *Child) Counters(d Direction) (Counters, error) {
	r, err := c.exchange(childRequest{Op: "counters", Direction: d})
	if err != nil || r.Counters == nil {
		return Counters{}, errors.Join(err, errNoCounters)
	}
	return *r.Counters, nil
}

var (
	errNoCounters = errors.New("wanem: no counters")
	errChildGone  = errors.New("wanem: the child has ended")
)

func (c *Child) exchange(request any) (r childReply, err error) {
	line, err := json.Marshal(request)
	if err != nil {
		return r, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return r, errors.Join(errChildGone, err)
	}
	if !c.out.Scan() {
		return r, errors.Join(errChildGone, c.out.Err())
	}
	if err := json.Unmarshal(c.out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("reading the wan emulator's answer: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Serve is a child's whole life. It returns when in ends.
func Serve(in io.Reader, out io.Writer) error {
	// Frames live in buffers that are used again; what is left for the
	// collector are the answers to a few requests a second.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(3 * MaxHeld)
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 6))
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() {
		return lines.Err()
	}
	answers := json.NewEncoder(out)
	wan, err := newServed(lines.Bytes())
	if err != nil {
		return errors.Join(err, answers.Encode(childReply{Error: err.Error()}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // of Run
	go func() { ended <- wan.Run(ctx) }()
	err = answers.Encode(childReply{})
	for err == nil && lines.Scan() {
		err = answers.Encode(wan.answer(lines.Bytes()))
	}
	cancel()
	return errors.Join(err, lines.Err(), <-ended)
}

func newServed(line []byte) (*WAN, error) {
	var c childConfig
	if err := json.Unmarshal(line, &c); err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	a, b := TapFromFile(os.NewFile(3, "tap a")), TapFromFile(os.NewFile(4, "tap b"))
	return New(a, b, Config{AB: c.AB, BA: c.BA, Seed: c.Seed, MTU: c.MTU})
}

func (w *WAN) answer(line []byte) childReply {
	var q childRequest
	err := json.Unmarshal(line, &q)
	if err == nil && q.Direction != AB && q.Direction != BA {
		err = errors.New("no such direction")
	}
	var counters *Counters
	switch {
	case err != nil:
	case q.Op == "set":
		err = w.Set(q.Direction, *cmp.Or(q.Profile, &Profile{}))
	case q.Op == "cut":
		err = w.Cut(q.Direction)
	case q.Op == "heal":
		err = w.Heal(q.Direction)
	case q.Op == "counters":
		var c Counters
		c, err = w.Counters(q.Direction)
		counters = &c
	default:
		err = fmt.Errorf("no operation %q", q.Op)
	}
	if err != nil {
		return childReply{Error: err.Error()}
	}
	return childReply{Counters: counters}
}
