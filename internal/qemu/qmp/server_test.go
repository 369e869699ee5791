package qmp

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"testing"
)

const hello = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}` + "\r\n"

// A server is the other end of a client under test. It is told what to say.
type server struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// serve greets a new client and returns both ends, ready for commands.
func serve(t *testing.T) (*Client, *server) {
	t.Helper()
	near, far := net.Pipe()
	s := &server{t: t, conn: far, in: bufio.NewReader(far)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.say(hello)
		req := s.hear()
		s.say(fmt.Sprintf(`{"return": {}, "id": %d}`, req.ID))
	}()
	c, err := NewClient(t.Context(), near)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		far.Close()
		c.Close()
	})
	return c, s
}

func (s *server) say(text string) {
	if _, err := s.conn.Write([]byte(text)); err != nil {
		s.t.Errorf("server writes: %v", err)
	}
}

type heard struct {
	Execute   string          `json:"execute"`
	ExecOOB   string          `json:"exec-oob"`
	Arguments json.RawMessage `json:"arguments"`
	ID        uint64          `json:"id"`
}

func (s *server) hear() heard {
	var h heard
	line, err := s.in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &h)
	}
	if err != nil {
		s.t.Errorf("server reads: %v", err)
	}
	return h
}
