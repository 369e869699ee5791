package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/tunnel"
)

// The kinds of channel, as wire.go has them.
const (
	kindControl = 1
	kindLeg     = 2
)

const someToken = "00112233445566778899aabbccddeeff"

// badPeer speaks the control protocol by hand over the link of a site.
type badPeer struct {
	t  testing.TB
	ch *tunnel.Channel
}

func (s *site) control(to, token string) *badPeer {
	s.t.Helper()
	h := fmt.Sprintf(`{"version":5,"token":%q}`, token)
	return &badPeer{s.t, s.open(to, tunnel.Spec{Kind: kindControl, Header: []byte(h), Class: tunnel.Urgent})}
}

func (s *site) open(to string, spec tunnel.Spec) *tunnel.Channel {
	s.t.Helper()
	ch, err := s.node.Link(to).Open(s.t.Context(), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return ch
}

func (p *badPeer) say(msg any) {
	p.t.Helper()
	b, err := json.Marshal(msg)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.ch.Send(p.t.Context(), b); err != nil {
		p.t.Fatal(err)
	}
}

// hear returns the type and the reason of the next message.
func (p *badPeer) hear() (kind, reason string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	m, err := p.ch.Recv(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	p.ch.Done(m.Seq)
	var c struct{ Type, Reason string }
	if err := json.Unmarshal(m.Data, &c); err != nil {
		p.t.Fatal(err)
	}
	return c.Type, c.Reason
}

func (p *badPeer) ask(msg any, want string) (reason string) {
	p.t.Helper()
	p.say(msg)
	kind, reason := p.hear()
	if kind != want {
		p.t.Errorf("%v: answered %q (%s), want %q", msg, kind, reason, want)
	}
	return reason
}

type fields map[string]any

// prepare is an order that a fake host obeys.
func prepare(token, vm string) fields {
	return fields{
		"type": "prepare",
		"job":  fields{"id": "m-" + token[:8], "vm": vm, "state": "preparing"},
		"spec": fields{"vm": vm, "token": token, "memory_bytes": 1 << 20, "args": []string{"fake", "-m", "1M"}},
	}
}

// prepareOrder is the order that has the fake host of s start a VM.
func (s *site) prepareOrder(vm, token string) fields {
	s.t.Helper()
	src, err := s.host.Source(s.t.Context(), vm)
	if err != nil {
		s.t.Fatal(err)
	}
	defer src.Close()
	spec, err := src.Spec(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	spec.Token = token
	p := prepare(token, vm)
	p["spec"] = spec
	return p
}

// A connection for a move whose process does not wait yet, or waits no more,
// is refused; the gateway lives.
func TestLegAtTheWrongTime(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	goOn, reached := make(chan struct{}), make(chan struct{})
	b.host.Inject(hvtest.Fault{Step: hvtest.StepPrepare, Wait: goOn, Reached: reached})
	p := a.control("b", someToken)
	p.say(a.prepareOrder("db1", someToken))
	<-reached
	leg := func(patience time.Duration) error {
		h := fmt.Sprintf(`{"version":5,"session":%q,"index":0,"role":"qemu"}`, someToken)
		ch := a.open("b", tunnel.Spec{Kind: kindLeg, Header: []byte(h)})
		defer ch.Abort("test")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := ch.Recv(ctx)
		return err
	}
	leg(200 * time.Millisecond) // the source has gone away again
	close(goOn)
	if kind, reason := p.hear(); kind != "prepared" {
		t.Fatalf("%s: %s", kind, reason)
	}
	p.say(fields{"type": "abort", "reason": "enough"})
	for kind := ""; kind != "aborted"; { // that the leg has failed may be told first
		if kind, _ = p.hear(); kind != "aborted" && kind != "failed" {
			t.Fatalf("answered %q", kind)
		}
	}
	var refused *tunnel.AbortError
	if err := leg(2 * time.Minute); !errors.As(err, &refused) {
		t.Errorf("late leg: %v, want a refusal", err)
	}
	if a.migrate("b").State != gateway.JobDone {
		t.Error("an honest move fails afterwards")
	}
}

// Orders about moves that are over, or never were, are answered from the
// journal, in any order and any number; a token opens a move once.
func TestLateOrders(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	p := a.control("b", someToken)
	p.ask(fields{"type": "commit"}, "unknown")
	p.ask(fields{"type": "abort"}, "unknown")
	p.ask(a.prepareOrder("db1", someToken), "prepared")
	p.ask(a.prepareOrder("db1", someToken), "refused")
	p.ask(fields{"type": "commit"}, "aborted") // nothing was loaded
	p.ask(fields{"type": "commit"}, "aborted")
	p.ask(fields{"type": "abort"}, "aborted")
	if why := p.ask(a.prepareOrder("db1", someToken), "refused"); !strings.Contains(why, "before") {
		t.Errorf("a token that was used: %s", why)
	}
	j := a.migrate("b")
	if j.State != gateway.JobDone {
		t.Fatal(j.Error)
	}
	b.wait(j.ID)
	token := a.token(j.ID)
	q := a.control("b", token)
	q.ask(fields{"type": "abort", "reason": "late"}, "running")
	q.ask(fields{"type": "commit"}, "running")
	ledger.Check(t, "db1", "host-b")
	if n := b.g.Sinks(); n != 0 {
		t.Errorf("%d ended moves are kept in memory", n)
	}
}

// TestDrainAtAnyTime: a move that its source has given up does not come to run, whatever
// that says later; and nobody gives up a move that is not there yet, or is over.
func TestDrainAtAnyTime(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	drain := fields{"type": "drain", "reason": "given up on purpose"}
	p := a.control("b", someToken)
	p.say(drain)
	p.ask(a.prepareOrder("db1", someToken), "prepared")
	p.say(drain)
	p.say(drain)
	if why := p.ask(fields{"type": "commit"}, "aborted"); !strings.Contains(why, "given up on purpose") {
		t.Errorf("an order to run a move that was given up: %s", why)
	}
	j := a.migrate("b")
	if j.State != gateway.JobDone {
		t.Fatal(j.Error)
	}
	b.wait(j.ID)
	q := a.control("b", a.token(j.ID))
	q.say(drain)
	q.ask(fields{"type": "commit"}, "running")
	ledger.Check(t, "db1", "host-b")
}

// token finds the token of a job.
func (s *site) token(id string) string {
	s.t.Helper()
	all, err := s.g.Moves()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range all {
		if e.Job.ID == id {
			return e.Token
		}
	}
	s.t.Fatalf("job %s is not in the journal of %s", id, s.name)
	return ""
}

// A peer that chooses the ID of a local job, or is refused a thousand times,
// changes and fills nothing here.
func TestPeerCannotReplaceJobs(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	b.host.Add(hvtest.Guest{Name: "web", Rounds: -1})
	ours, err := b.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "web", To: "a"})
	if err != nil {
		t.Fatal(err)
	}
	order := a.prepareOrder("db1", someToken)
	order["job"] = fields{"id": ours.ID, "vm": "db1", "state": "preparing"}
	a.control("b", someToken).ask(order, "prepared")
	if j, err := b.g.Job(t.Context(), ours.ID); err != nil || j.VM != "web" || j.Role != "source" {
		t.Errorf("our job is now %+v, %v", j, err)
	}
	if _, err := b.g.AbortJob(t.Context(), ours.ID); err != nil {
		t.Errorf("our job cannot be aborted: %v", err)
	}
	for i := range 20 {
		token := fmt.Sprintf("%032x", i)
		p := a.control("b", token)
		order := a.prepareOrder("db1", token)
		order["host"] = "no-such"
		p.ask(order, "refused")
		p.ch.Abort("test")
	}
	b.wait(ours.ID)
	open, err := b.g.OpenMoves()
	if err != nil || len(open) != 1 { // the one that waits for orders
		t.Errorf("open moves in the journal: %+v, %v", open, err)
	}
	if n := b.g.Sinks(); n != 1 {
		t.Errorf("%d moves in memory, want the one that waits", n)
	}
}

// Many control channels that end make one query, not one each.
func TestControlChannelsComeAndGo(t *testing.T) {
	a, b, _ := newPair(t, hvtest.Guest{})
	a.control("b", someToken).ask(a.prepareOrder("db1", someToken), "prepared")
	for range 30 {
		p := a.control("b", someToken)
		p.ask(a.prepareOrder("db1", someToken), "refused")
		p.ch.Abort("test")
	}
	deadline := time.Now().Add(2 * time.Minute)
	for b.g.Asking(someToken) && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := countGoroutines("(*sinkMove).query"); n > 1 {
		t.Errorf("%d goroutines ask about one move", n)
	}
}

// A VM that is coming in is not this site's to move on.
func TestIncomingVMIsNotMoved(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{})
	goOn, reached := make(chan struct{}), make(chan struct{})
	b.host.Inject(hvtest.Fault{Step: hvtest.StepSinkResume, Wait: goOn, Reached: reached})
	j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"})
	if err != nil {
		t.Fatal(err)
	}
	<-reached // loaded and paused at b
	if _, err := b.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "a"}); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("moving a VM that has not come to run here: %v, want ErrBusy", err)
	}
	close(goOn)
	if end := a.wait(j.ID); end.State != gateway.JobDone {
		t.Errorf("%s: %s", end.State, end.Error)
	}
	ledger.Check(t, "db1", "host-b")
}

// An address whose path the kernel reads otherwise than a rule does is none.
func TestAddressesOfForwards(t *testing.T) {
	for address, ok := range map[string]bool{
		"unix:/run/vms/a.sock": true, "tcp:127.0.0.1:80": true, "tcp:[::1]:80": true,
		"unix:/run/vms/link/../a.sock": false, "unix:/run//a": false, "unix:/run/.": false, "unix:a": false, "unix:": false,
		"unix:@abstract": false, "tcp:": false, "tcp:nowhere": false, "udp:127.0.0.1:80": false, "": false,
	} {
		if _, _, err := gateway.SplitAddress(address); (err == nil) != ok || err != nil && !errors.Is(err, gateway.ErrInvalid) {
			t.Errorf("%q: %v, want ok %v", address, err, ok)
		}
	}
}
