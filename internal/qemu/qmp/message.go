package qmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxMessage is the most bytes that one message may have. The longest that
// QEMU 7.2 sends is query-qmp-schema, about 200 KiB; query-named-block-nodes
// of a VM with hundreds of disks comes to a few MiB.
const MaxMessage = 16 << 20

var (
	errTooLong = fmt.Errorf("message of more than %d bytes", MaxMessage)
	errGarbage = errors.New("bytes that are no QMP message")
)

// A splitter finds where messages end. Its zero value is at the start of one.
type splitter struct {
	scanned  int // bytes of the current message that were looked at
	depth    int
	inString bool
	escaped  bool
}

// next returns the number of bytes at the start of b that precede a message,
// and the number that the message has. n is 0 when b holds no whole message;
// call again with more bytes after the same ones.
func (s *splitter) next(b []byte) (skip, n int, err error) {
	if s.depth == 0 {
		skip = len(b) - len(bytes.TrimLeft(b, " \t\r\n"))
	}
	for i := skip + s.scanned; i < len(b); i++ {
		if s.inString && !s.escaped { // most bytes are
			n := bytes.IndexAny(b[i:], `"\\`)
			if n < 0 {
				n = len(b) - i
			}
			i += n
		}
		if i-skip >= MaxMessage {
			return skip, 0, errTooLong
		}
		if i == len(b) {
			break
		}
		if s.step(b[i]) {
			s.scanned = 0
			return skip, i + 1 - skip, nil
		}
		if s.depth == 0 {
			return skip, 0, fmt.Errorf("%w: %.40q", errGarbage, b[i:])
		}
	}
	s.scanned = len(b) - skip
	return skip, 0, nil
}

// step looks at one byte and tells whether it ends a message.
func (s *splitter) step(c byte) bool {
	switch {
	case s.escaped:
		s.escaped = false
	case s.inString:
		s.escaped = c == '\\'
		s.inString = c != '"'
	case c == '"':
		s.inString = s.depth > 0
	case c == '{':
		s.depth++
	case c == '}':
		s.depth--
		return s.depth == 0
	}
	return false
}

// A message is anything that a server sends.
type message struct {
	QMP    *greeting       `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	ID        *uint64         `json:"id"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// greeting is the first message of a server.
type greeting struct {
	Version      Version  `json:"version"`
	Capabilities []string `json:"capabilities"`
}

// parse reads one message.
func parse(b []byte) (message, error) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w in %.80q", errGarbage, err, b)
	}
	kinds := 0
	for _, is := range []bool{m.QMP != nil, m.Return != nil, m.Error != nil, m.Event != ""} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return message{}, fmt.Errorf("%w: %.80q is neither greeting, return, error nor event", errGarbage, b)
	}
	return m, nil
}

func (m message) event(read time.Time) Event {
	return Event{
		Name: m.Event, Data: m.Data, Read: read,
		Time: time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000),
	}
}

// A request is what a client sends.
type request struct {
	Execute   string `json:"execute,omitempty"`
	ExecOOB   string `json:"exec-oob,omitempty"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}
