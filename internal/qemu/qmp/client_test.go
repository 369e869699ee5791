package qmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCommand(t *testing.T) {
	c, s := serve(t)
	go func() {
		req := s.hear()
		if req.Execute != "query-status" {
			t.Errorf("heard %+v", req)
		}
		// An event first, and the message in pieces, as sockets have it.
		s.say(`{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}` + "\r\n" + `{"return": {"status": "pau`)
		s.say(fmt.Sprintf(`sed", "running": false, "x": "}\"{"}, "id": %d}`+"\r\n", req.ID))
	}()
	got, err := c.QueryStatus(t.Context())
	if want := (Status{Status: "paused"}); err != nil || got != want {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
	if got, want := c.Version().String(), "QEMU 7.2.22"; got != want {
		t.Errorf("version %q, want %q", got, want)
	}
}

func TestRefusal(t *testing.T) {
	c, s := serve(t)
	go func() {
		s.say(fmt.Sprintf(`{"id": %d, "error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}`, s.hear().ID))
	}()
	err := c.Execute(t.Context(), "x", nil, nil)
	var refused *Error
	if !errors.As(err, &refused) || refused.Command != "x" || !IsUnknownCommand(err) || !strings.Contains(err.Error(), "has not been found") {
		t.Errorf("error %v", err)
	}
	if err := c.Err(); err != nil {
		t.Errorf("connection ended: %v", err)
	}
}

func TestOutOfBand(t *testing.T) {
	c, s := serve(t)
	go func() {
		req := s.hear()
		if req.ExecOOB != "yank" || req.Execute != "" || !strings.Contains(string(req.Arguments), `"migration"`) {
			t.Errorf("heard %+v", req)
		}
		s.say(fmt.Sprintf(`{"return": {}, "id": %d}`, req.ID))
	}()
	if err := c.YankMigration(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestConcurrentCalls answers in the reverse order.
func TestConcurrentCalls(t *testing.T) {
	const calls = 20
	c, s := serve(t)
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			var got string
			command := fmt.Sprintf("command-%d", i)
			if err := c.Execute(t.Context(), command, nil, &got); err != nil || got != command {
				t.Errorf("%s: got %q, error %v", command, got, err)
			}
		})
	}
	var reqs []heard
	for range calls {
		reqs = append(reqs, s.hear())
	}
	for i := len(reqs) - 1; i >= 0; i-- {
		s.say(fmt.Sprintf(`{"return": %q, "id": %d}`, reqs[i].Execute, reqs[i].ID))
	}
	wg.Wait()
}

func TestCallerGoesAndAnswerComesLater(t *testing.T) {
	c, s := serve(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	errWished := errors.New("as the test wished")
	ids := make(chan uint64, 1) // the one request
	go func() {
		ids <- s.hear().ID
		cancel(errWished)
	}()
	if err := c.Stop(ctx); !errors.Is(err, errWished) {
		t.Errorf("error %v", err)
	}
	s.say(fmt.Sprintf(`{"return": {}, "id": %d}`, <-ids))
	go func() { s.say(fmt.Sprintf(`{"return": {}, "id": %d}`, s.hear().ID)) }()
	if err := c.Cont(t.Context()); err != nil {
		t.Errorf("the next command: %v", err)
	}
}

func TestServerEndsOrLies(t *testing.T) {
	for _, c := range []struct {
		name string
		say  string
		want string
	}{
		{"hangs up", "", "hung up"},
		{"hangs up in a message", `{"return":`, "hung up"},
		{"no json", `{"return": nonsense, "id": 2}`, "no QMP message"},
		{"no brace", "HTTP/1.1 400 Bad Request\r\n", "no QMP message"},
		{"neither this nor that", `{"id": 2}`, "no QMP message"},
		{"both", `{"return": {}, "event": "STOP", "id": 2}`, "no QMP message"},
		{"unknown id", `{"return": {}, "id": 77}`, "request 77"},
		{"answer without id", `{"return": {}}`, "without id"},
		{"error without id", `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`, "JSON parse error"},
		{"id of another kind", `{"return": {}, "id": "two"}`, "no QMP message"},
		{"greets again", hello, "greeting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, s := serve(t)
			sub := client.Subscribe()
			go func() {
				s.hear()
				if c.say != "" {
					s.conn.Write([]byte(c.say))
				}
				s.conn.Close()
			}()
			if err := client.Cont(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("command: error %v, want %q", err, c.want)
			}
			<-client.Done()
			if _, err := sub.Next(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("subscription: error %v, want %q", err, c.want)
			}
			if err := client.Cont(t.Context()); err == nil {
				t.Error("a command on an ended connection succeeds")
			}
		})
	}
}

func TestEndlessMessage(t *testing.T) {
	c, s := serve(t)
	go func() {
		s.conn.Write([]byte(`{"return": "`))
		junk := make([]byte, 64<<10)
		for i := range junk {
			junk[i] = 'x'
		}
		for {
			if _, err := s.conn.Write(junk); err != nil {
				return
			}
		}
	}()
	<-c.Done()
	if err := c.Err(); !errors.Is(err, errTooLong) {
		t.Errorf("error %v", err)
	}
}

func TestNobodyGreets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		ctx, cancel := context.WithTimeoutCause(t.Context(), GreetingWait, ErrMonitorBusy)
		defer cancel()
		start := time.Now()
		if _, err := NewClient(ctx, near); !errors.Is(err, ErrMonitorBusy) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != GreetingWait {
			t.Errorf("took %v", took)
		}
	})
}

func TestWriteIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := serve(t) // which reads no more
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Cont(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		<-c.Done() // half a command is on the wire
	})
}

func TestCloseEndsEverything(t *testing.T) {
	c, s := serve(t)
	sub := c.Subscribe()
	done := make(chan error, 1) // one answer
	go func() { done <- c.Cont(t.Context()) }()
	s.hear()
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("command: %v", err)
	}
	if _, err := sub.Next(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("subscription: %v", err)
	}
	if _, err := c.Subscribe().Next(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("late subscription: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestGarbageInsteadOfGreeting(t *testing.T) {
	for _, text := range []string{"SSH-2.0-OpenSSH_9.2\r\n", `{"return": {}, "id": 1}`, `{"event": "STOP"}`, ""} {
		near, far := net.Pipe()
		go func() {
			io.WriteString(far, text)
			far.Close()
		}()
		if c, err := NewClient(t.Context(), near); err == nil {
			c.Close()
			t.Errorf("%q greets", text)
		}
	}
}
