package qemutest

import (
	"encoding/json"
	"net"
	"testing"
	"time"
)

// patience is how long one answer or event of a QEMU may take: TCG on a busy
// machine needs some seconds to boot and to migrate.
const patience = 90 * time.Second

// monitor is just enough of a QMP client for this package. It fails the test
// on whatever it does not expect.
type monitor struct {
	tb   testing.TB
	name string
	conn net.Conn
	dec  *json.Decoder
	log  func() string // what the process has said on stderr

	events []event // read while waiting for answers
}

// message is anything that QMP sends.
type message struct {
	event
	Return json.RawMessage
	Error  *struct{ Desc string }
}

type event struct {
	Event string
	Data  struct {
		Status string // of MIGRATION
		Pass   int    // of MIGRATION_PASS
	}
}

func newMonitor(tb testing.TB, name string, conn net.Conn, log func() string) *monitor {
	m := &monitor{tb: tb, name: name, conn: conn, dec: json.NewDecoder(conn), log: log}
	m.read() // greeting
	m.do("qmp_capabilities", nil)
	return m
}

func (m *monitor) read() (msg message) {
	m.tb.Helper()
	m.conn.SetReadDeadline(time.Now().Add(patience))
	if err := m.dec.Decode(&msg); err != nil {
		m.tb.Fatalf("%s: reading QMP: %v\n%s", m.name, err, m.log())
	}
	return msg
}

// do runs a command and decodes what it returns into the value that into
// points to, unless there is none.
func (m *monitor) do(command string, args any, into ...any) {
	m.tb.Helper()
	req := map[string]any{"execute": command}
	if args != nil {
		req["arguments"] = args
	}
	b, err := json.Marshal(req)
	if err == nil {
		_, err = m.conn.Write(b)
	}
	if err != nil {
		m.tb.Fatalf("%s: %s: %v\n%s", m.name, command, err, m.log())
	}
	for {
		msg := m.read()
		switch {
		case msg.Event != "":
			m.events = append(m.events, msg.event)
			continue
		case msg.Error != nil:
			m.tb.Fatalf("%s: %s: %s", m.name, command, msg.Error.Desc)
		}
		for _, v := range into {
			if err := json.Unmarshal(msg.Return, v); err != nil {
				m.tb.Fatalf("%s: %s: %v", m.name, command, err)
			}
		}
		return
	}
}

// wait reads until an event that is wanted. A migration that ends before
// that fails the test.
func (m *monitor) wait(what string, wanted func(event) bool) {
	m.tb.Helper()
	for {
		switch e := m.next(); {
		case wanted(e):
			return
		case e.ends():
			m.tb.Fatalf("%s: migration %s while waiting for %s\n%s", m.name, e.Data.Status, what, m.log())
		}
	}
}

// next is the next event.
func (m *monitor) next() (e event) {
	m.tb.Helper()
	if len(m.events) > 0 {
		e, m.events = m.events[0], m.events[1:]
		return e
	}
	return m.read().event
}

// ends tells whether the migration has ended.
func (e event) ends() bool { return e.Data.Status == "failed" || e.Data.Status == "completed" }

func (m *monitor) waitStatus(status string) {
	m.tb.Helper()
	m.wait(status, func(e event) bool { return e.Event == "MIGRATION" && e.Data.Status == status })
}

// waitPass waits until a pass over memory begins. It returns false if the
// migration has ended before.
func (m *monitor) waitPass(pass int) bool {
	m.tb.Helper()
	for {
		switch e := m.next(); {
		case e.Event == "MIGRATION_PASS" && e.Data.Pass >= pass:
			return true
		case e.ends():
			return false
		}
	}
}
