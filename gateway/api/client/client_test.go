package client

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

// answer serves one handler on a socket.
func answer(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	ended := make(chan error, 1) // the one result of Serve
	go func() { ended <- srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-ended })
	return New(path)
}

func TestUnreachable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	_, err := New(path).Status(t.Context())
	if !errors.Is(err, ErrUnreachable) || err.Error() != "no gateway answers at "+path+": connect: no such file or directory" {
		t.Errorf("%v", err)
	}
	if err := New(path).WatchJob(t.Context(), "x", nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("watch: %v", err)
	}
}

// What is no gateway's answer is an error that says so.
func TestStrangeAnswers(t *testing.T) {
	for _, tt := range []struct {
		kind, body string
		status     int
		want       string
	}{
		{"text/html", "<html>", 502, "the gateway answered 502 Bad Gateway"},
		{"application/problem+json", "{", 500, "the gateway answered 500"},
		{"application/problem+json", `{"type":"about:blank","detail":"x"}`, 500, "x"},
		{"application/json", "{", 200, "reading the gateway's answer: "},
		{"application/json", `{"site":7}`, 200, "reading the gateway's answer: "},
	} {
		c := answer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tt.kind)
			w.WriteHeader(tt.status)
			w.Write([]byte(tt.body))
		})
		_, err := c.Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d %q: %v; want %q", tt.status, tt.body, err, tt.want)
		}
		var e *Error
		if tt.status >= 300 && (!errors.As(err, &e) || e.Code != "internal" || errors.Is(err, gateway.ErrNotFound)) {
			t.Errorf("%d %q: %#v", tt.status, tt.body, err)
		}
		c.Close()
	}
}

func TestReadEvents(t *testing.T) {
	stop := errors.New("stop")
	for _, tt := range []struct {
		name, text string
		want       string // states that arrive
		err        error
	}{
		{"all", ": hello\n\nevent: job\ndata: {\"job\":{\"state\":\"moving\"}}\n\n: alive\n\nevent: job\ndata: {\"job\":{\"state\":\"done\"}}\n\nevent: end\ndata: {}\n\n", "moving done ", nil},
		{"no space", "event:job\ndata:{\"job\":{\"state\":\"moving\"}}\n\nevent:end\n\n", "moving ", nil},
		{"CRLF", "event: job\r\ndata: {\"job\":{\"state\":\"moving\"}}\r\n\r\nevent: end\r\n\r\n", "moving ", nil},
		{"unknown event and field", "event: news\ndata: x\n\nid: 7\nevent: job\ndata: {\"job\":{\"state\":\"moving\"}}\nretry: 1\n\nevent: end\n\n", "moving ", nil},
		{"cut", "event: job\ndata: {\"job\":{\"state\":\"moving\"}}\n\nevent: job\ndata: {\"jo", "moving ", ErrCut},
		{"cut before the empty line", "event: job\ndata: {\"job\":{\"state\":\"moving\"}}\n", "", ErrCut},
		{"empty", "", "", ErrCut},
		{"too long", "data: " + strings.Repeat("x", maxEvent) + "\n\n", "", ErrCut},
		{"stopped", "event: job\ndata: {\"job\":{\"state\":\"failed\"}}\n\nevent: job\ndata: {}\n\n", "failed ", stop},
	} {
		var got string
		err := readEvents(strings.NewReader(tt.text), func() {}, func(ev gateway.JobEvent) error {
			got += string(ev.Job.State) + " "
			if ev.Job.State == gateway.JobFailed {
				return stop
			}
			return nil
		})
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v; want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	err := readEvents(strings.NewReader("event: job\ndata: {\n\n"), func() {}, nil)
	if err == nil || errors.Is(err, ErrCut) {
		t.Errorf("broken JSON: %v", err)
	}
}

// Each line is a sign of life, comments too.
func TestSignsOfLife(t *testing.T) {
	n := 0
	_ = readEvents(strings.NewReader(": a\n\n: b\n\n"), func() { n++ }, nil)
	if n != 4 {
		t.Errorf("%d signs", n)
	}
	if silence < 3*15*time.Second {
		t.Errorf("patience of %v is less than three of the server's signs of life", silence)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add([]byte(": job events\n\nevent: job\ndata: {\"at\":\"2026-03-14T09:26:53Z\",\"job\":{\"id\":\"x\",\"state\":\"moving\"}}\n\nevent: end\ndata: {}\n\n"))
	f.Add([]byte("data\n\n:\nevent\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ends := strings.Contains(string(b), "end")
		err := readEvents(strings.NewReader(string(b)), func() {}, func(gateway.JobEvent) error { return nil })
		if err == nil && !ends {
			t.Errorf("%q ends", b)
		}
	})
}
