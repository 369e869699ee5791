package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// A Monitor is a small QMP client: enough for a plain move and for tests to
// look at a QEMU from outside. The product's own client is internal/qemu/qmp;
// the lab has another, so that it does not judge moves with the code that makes
// them.
type Monitor struct {
	conn    net.Conn
	answers chan answer // capacity 1: one command is under way
	ended   chan struct{}

	cmd sync.Mutex // held for a whole command

	mu     sync.Mutex // guards what follows
	events []MonitorEvent
	more   chan struct{} // closed and replaced at each event
}

// MonitorEvent is an event of QEMU with the time that QEMU gave it, by this
// machine's clock.
type MonitorEvent struct {
	Name string
	At   time.Time
	Data json.RawMessage
}

type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

type qmpLine struct {
	answer
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
	QMP json.RawMessage `json:"QMP"`
}

// OpenMonitor connects to a QMP socket, which may take a moment to appear.
func OpenMonitor(ctx context.Context, path string) (*Monitor, error) {
	conn, err := dialUnix(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("connecting to qemu: %w", err)
	}
	m := &Monitor{conn: conn, answers: make(chan answer, 1), ended: make(chan struct{}), more: make(chan struct{})}
	go m.read()
	if err := m.Do(ctx, "qmp_capabilities", map[string]any{"enable": []string{"oob"}}, nil); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-look.C:
		}
	}
}

// Close lets go of QEMU, which goes on.
func (m *Monitor) Close() error {
	err := m.conn.Close()
	<-m.ended
	return err
}

func (m *Monitor) read() {
	defer close(m.ended)
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(nil, 4<<20) // query-* answers are long
	for lines.Scan() {
		var l qmpLine
		if json.Unmarshal(lines.Bytes(), &l) != nil || l.QMP != nil {
			continue
		}
		if l.Event == "" {
			select {
			case m.answers <- l.answer:
			default: // nobody asked
			}
			continue
		}
		at := time.Unix(l.Timestamp.Seconds, l.Timestamp.Microseconds*1000)
		m.mu.Lock()
		m.events = append(m.events, MonitorEvent{l.Event, at, l.Data})
		close(m.more)
		m.more = make(chan struct{})
		m.mu.Unlock()
	}
}

// Do executes a command; result may be nil.
func (m *Monitor) Do(ctx context.Context, command string, arguments, result any) error {
	return m.send(ctx, "execute", command, arguments, result)
}

// Urgent executes a command out of band: QEMU answers also while its main loop
// waits for a page that the break of a postcopy has kept back. Few commands can be
// urgent (QEMU, docs/interop/qmp-spec.txt, section 2.3.1).
func (m *Monitor) Urgent(ctx context.Context, command string, arguments any) error {
	return m.send(ctx, "exec-oob", command, arguments, nil)
}

// send sends a command in the named way, and waits for its answer.
func (m *Monitor) send(ctx context.Context, way, command string, arguments, result any) error {
	m.cmd.Lock()
	defer m.cmd.Unlock()
	msg := map[string]any{way: command}
	if arguments != nil {
		msg["arguments"] = arguments
	}
	line, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	select { // of a command that was given up
	case <-m.answers:
	default:
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case a := <-m.answers:
		if a.Error != nil {
			return fmt.Errorf("qmp %s: %s: %s", command, a.Error.Class, a.Error.Desc)
		}
		if result != nil {
			return json.Unmarshal(a.Return, result)
		}
		return nil
	case <-m.ended:
		return fmt.Errorf("qmp %s: %w", command, errQEMUGone)
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: %w", command, ctx.Err())
	}
}

var errQEMUGone = errors.New("qemu has closed the connection")

// Wait waits for the first event of a name since the connection was made.
func (m *Monitor) Wait(ctx context.Context, name string) (MonitorEvent, error) {
	for {
		m.mu.Lock()
		more := m.more
		for _, e := range m.events {
			if e.Name == name {
				m.mu.Unlock()
				return e, nil
			}
		}
		m.mu.Unlock()
		select {
		case <-more:
		case <-m.ended:
			return MonitorEvent{}, fmt.Errorf("waiting for %s: %w", name, errQEMUGone)
		case <-ctx.Done():
			return MonitorEvent{}, fmt.Errorf("waiting for %s: %w", name, ctx.Err())
		}
	}
}

// Events since the connection was made.
func (m *Monitor) Events() []MonitorEvent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]MonitorEvent(nil), m.events...)
}

// Running tells whether QEMU executes the guest.
func (m *Monitor) Running(ctx context.Context) (bool, error) {
	var s struct {
		Running bool `json:"running"`
	}
	err := m.Do(ctx, "query-status", nil, &s)
	return s.Running, err
}

// Migration is QEMU's own count of a migration.
type Migration struct {
	Status string `json:"status"`
	Error  string `json:"error-desc"`
	RAM    struct {
		Transferred int64 `json:"transferred"`
		Remaining   int64 `json:"remaining"`
		Total       int64 `json:"total"`
		Rounds      int   `json:"dirty-sync-count"`
		DirtyRate   int64 `json:"dirty-pages-rate"` // pages per second, as of the last round
	} `json:"ram"`
}

// Migration asks how far a migration is.
func (m *Monitor) Migration(ctx context.Context) (Migration, error) {
	var q Migration
	err := m.Do(ctx, "query-migrate", nil, &q)
	return q, err
}
