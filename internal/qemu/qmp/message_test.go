package qmp

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"
)

// session is what a QEMU 7.2 said on one connection: queries, refusals, a
// migration that failed and one into a file, and quit.
func session(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/qemu-7.2.session")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cut returns the messages of b, as read in steps of n bytes.
func cut(b []byte, n int) (messages [][]byte, err error) {
	var s splitter
	var buf []byte
	for {
		skip, size, err := s.next(buf)
		if err != nil {
			return messages, err
		}
		if size > 0 {
			messages = append(messages, bytes.Clone(buf[skip:skip+size]))
			buf = buf[skip+size:]
			continue
		}
		if len(b) == 0 {
			return messages, nil
		}
		k := min(n, len(b))
		buf, b = append(buf[skip:], b[:k]...), b[k:]
	}
}

func TestSplitRealSession(t *testing.T) {
	want := bytes.Split(bytes.TrimSpace(session(t)), []byte("\r\n"))
	for _, n := range []int{1, 7, 4096, 1 << 20} {
		got, err := cut(session(t), n)
		if err != nil {
			t.Fatalf("steps of %d: %v", n, err)
		}
		if len(got) != len(want) {
			t.Fatalf("steps of %d: %d messages, want %d", n, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("steps of %d: message %d is %s, want %s", n, i, got[i], want[i])
			}
			if _, err := parse(got[i]); err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
	}
}

// FuzzMessages: what is cut does not depend on how it was read, and what is
// taken for a message is one JSON value.
func FuzzMessages(f *testing.F) {
	f.Add(session(f), 16)
	for line := range bytes.Lines(session(f)) {
		f.Add(line, 3)
	}
	f.Add([]byte("{\r\n    \"return\": {\r\n    }\r\n}\r\n{}"), 1) // pretty=on
	f.Add([]byte(`{"a": "\\\"}{"} {"b": "\u007d"}`), 2)
	f.Add([]byte("\xff{}"), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = max(1, n&0xfff)
		one, errOne := cut(b, 1)
		got, err := cut(b, n)
		if (err == nil) != (errOne == nil) || len(got) != len(one) {
			t.Fatalf("steps of %d: %d messages, error %v; of 1: %d, error %v", n, len(got), err, len(one), errOne)
		}
		for i := range got {
			if !bytes.Equal(got[i], one[i]) {
				t.Fatalf("message %d: %q and %q", i, got[i], one[i])
			}
			if m, err := parse(got[i]); err == nil {
				if !json.Valid(got[i]) {
					t.Fatalf("%q is a message", got[i])
				}
				m.event(time.Time{})
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := session(b)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		messages, _ := cut(text, readSize)
		for _, m := range messages {
			if _, err := parse(m); err != nil {
				b.Fatal(err)
			}
		}
	}
}
