package gateway

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

// The times of a test. All of it takes less than 15 s.
const (
	testIdle  = time.Second     // pings without load
	testLoad  = 5 * time.Second // bulk, each way
	testTotal = 14 * time.Second
	// testPing is how often an urgent message is sent.
	testPing = 50 * time.Millisecond
	pingLen  = 200 // bytes, as a hypervisor's return path has them
)

// A prober tests a link.
type prober struct {
	link       *tunnel.Link
	idle, load time.Duration
	// tell is given what is known so far; it must not block.
	tell func(LinkTest)

	now  LinkTest
	echo *echoes
}

// run measures. What it returns is complete unless there is an error.
func (p *prober) run(ctx context.Context) (LinkTest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, testTotal, errors.New("the test took too long: the line is very slow, or was away"))
	defer cancel()
	ctx, lose := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer lose(nil)
	watching.Go(func() { lose(lost(ctx, p.link)) })
	ch, err := p.open(ctx, testHeader{Part: testEcho}, tunnel.Urgent)
	if err != nil {
		return p.now, err
	}
	p.echo = newEchoes(ch)
	defer p.echo.stop()
	for _, step := range []func(context.Context) error{p.rest, p.there, p.back} {
		if err := step(ctx); err != nil {
			return p.now, explainTest(ctx, err)
		}
	}
	p.describe()
	p.now.Phase, p.now.Progress = "ended", 1
	p.now.judge()
	return p.now, nil
}

// lost waits for the end of the link as it is, or of ctx, and says why it went: what was
// measured until then and after it says nothing of the line.
func lost(ctx context.Context, link *tunnel.Link) error {
	began, changed := link.Watch()
	for s := began; ; {
		if !s.Up || !s.Since.Equal(began.Since) {
			return fmt.Errorf("the link was lost during the test: %s", cmp.Or(s.Why, "it is up again by now"))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		s, changed = link.Watch()
	}
}

// explainTest makes of an error what an operator can use.
func explainTest(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var a *tunnel.AbortError
	if errors.As(err, &a) && !a.Local {
		return fmt.Errorf("the peer refuses: %s", a.Reason)
	}
	return err
}

func (p *prober) open(ctx context.Context, h testHeader, class tunnel.Class) (*tunnel.Channel, error) {
	h.Version = protoVersion
	return p.link.Open(ctx, tunnel.Spec{
		Kind: kindTest, Header: encodeJSON(h), Class: class, BackBulk: class == tunnel.Bulk,
		Flow: p.link.NewBackgroundFlow("link test"),
	})
}

// say tells how far the test is.
func (p *prober) say(phase string, done time.Duration) {
	p.now.Phase = phase
	p.now.Progress = min(done.Seconds()/(p.idle+2*p.load).Seconds(), 1)
	p.describe()
	p.tell(p.now)
}

// describe fills in what the link tells of itself.
func (p *prober) describe() {
	s := p.link.State()
	p.now.Address, p.now.Carrier, p.now.Controller, p.now.Conns = s.Address, string(s.Carrier), s.Controller, s.Conns
	p.now.Rate, p.now.MTU = 8*s.Rate, p.link.MTU()
}

// rest measures round trips without load.
func (p *prober) rest(ctx context.Context) error {
	p.say("round trip without load", 0)
	took, err := p.echo.ping(ctx, p.idle, func(time.Duration) {})
	if err != nil {
		return err
	}
	p.now.RTT, p.now.RTTMin = inMillis(middle(took, 50)), inMillis(slices.Min(took))
	return nil
}

// there measures the way to the peer.
func (p *prober) there(ctx context.Context) error {
	ch, err := p.open(ctx, testHeader{Part: testSink}, tunnel.Bulk)
	if err != nil {
		return err
	}
	defer ch.Abort("the test is over")
	before := packets(p.link.State())
	c, start := newCurve(p.load), time.Now()
	var mu sync.Mutex // guards c
	ch.OnAcked(func(seq uint64) {
		mu.Lock()
		defer mu.Unlock()
		c.add(time.Since(start), int64(seq)*testBlock)
	})
	sending, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { pour(sending, ch, rand.Uint64()) })
	took, err := p.echo.ping(ctx, p.load, func(d time.Duration) { p.say("the way there", p.idle+d) })
	if err != nil {
		return err
	}
	if err := ch.Err(); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	p.now.There = way(c, took, before, packets(p.link.State()))
	return nil
}

// back measures the way from the peer.
func (p *prober) back(ctx context.Context) error {
	before, err := p.echo.ask(ctx)
	if err != nil {
		return err
	}
	ch, err := p.open(ctx, testHeader{Part: testSource, Seed: rand.Uint64(), For: p.load}, tunnel.Bulk)
	if err != nil {
		return err
	}
	defer ch.Abort("the test is over")
	c, start := newCurve(p.load), time.Now()
	var mu sync.Mutex // guards c
	var wg sync.WaitGroup
	defer wg.Wait()
	taking, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		var total int64
		_ = drain(taking, ch, func(n int) { // it ends when we say so, or the peer does
			mu.Lock()
			defer mu.Unlock()
			total += int64(n)
			c.add(time.Since(start), total)
		})
	})
	took, err := p.echo.ping(ctx, p.load, func(d time.Duration) { p.say("the way back", p.idle+p.load+d) })
	if err != nil {
		return err
	}
	after, err := p.echo.ask(ctx)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	if err := ch.Err(); err != nil && c.total == 0 && !isOver(err) { // refused
		return err
	}
	p.now.Back = way(c, took, before, after)
	return nil
}

// isOver tells whether the peer has sent for as long as it was asked to: a line, or a machine,
// may be so slow that nothing has come of it.
func isOver(err error) bool {
	var aborted *tunnel.AbortError
	return errors.As(err, &aborted) && aborted.Reason == errTestOver.Error()
}

func way(c *curve, took []time.Duration, before, after testCounters) *LinkWay {
	mean, steady, t90 := c.summary()
	w := &LinkWay{
		Goodput: int64(8 * mean), Steady: int64(8 * steady), T90: t90.Seconds(),
		RTT: inMillis(middle(took, 50)), RTTP99: inMillis(middle(took, 99)),
		Sent: after.Sent - before.Sent, Lost: after.Lost - before.Lost,
	}
	if t90 < 0 {
		w.T90 = -1
	}
	if w.Sent < 0 || w.Lost < 0 || w.Lost > w.Sent { // a connection has ended, and its counts with it
		w.Sent, w.Lost = max(w.Sent, 0), -1
	}
	return w
}

// middle is the value below which percent of all lie. It sorts.
func middle(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)*percent/100, len(all)-1)]
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// echoes are the messages of a test's echo channel.
type echoes struct {
	ch   *tunnel.Channel
	end  context.CancelCauseFunc
	ctx  context.Context // of the reader: ends with it
	wg   sync.WaitGroup
	news chan testCounters // answers; one is asked for at a time

	mu   sync.Mutex // guards what follows
	sent map[uint64]time.Time
	took []time.Duration
	last uint64
}

func newEchoes(ch *tunnel.Channel) *echoes {
	e := &echoes{ch: ch, news: make(chan testCounters, 1), sent: make(map[uint64]time.Time)}
	e.ctx, e.end = context.WithCancelCause(context.Background())
	e.wg.Go(func() { e.end(e.read()) })
	return e
}

// stop ends the channel and waits for the reader.
func (e *echoes) stop() {
	e.end(nil)
	e.ch.Abort("the test is over")
	e.wg.Wait()
}

func (e *echoes) read() error {
	for {
		m, err := e.ch.Recv(e.ctx)
		if err != nil {
			return err
		}
		e.ch.Done(m.Seq)
		if err := e.heard(m.Data); err != nil {
			return err
		}
	}
}

func (e *echoes) heard(msg []byte) error {
	switch {
	case len(msg) == pingLen && msg[0] == echoPing:
		e.mu.Lock()
		defer e.mu.Unlock()
		n := binary.BigEndian.Uint64(msg[1:])
		if at, ok := e.sent[n]; ok {
			delete(e.sent, n)
			e.took = append(e.took, time.Since(at))
		}
		return nil
	case len(msg) > 1 && msg[0] == echoAsk:
		var c testCounters
		if err := decodeJSON(msg[1:], &c); err != nil {
			return fmt.Errorf("reading the peer's counters: %w", err)
		}
		select {
		case e.news <- c:
		default: // nobody has asked
		}
		return nil
	}
	return errors.New("the peer answered what was not asked")
}

// ping sends for so long, and returns how long each took. Those that have not
// come back count with their age. each is called from time to time.
func (e *echoes) ping(ctx context.Context, long time.Duration, each func(time.Duration)) ([]time.Duration, error) {
	e.mu.Lock()
	clear(e.sent)
	e.took = nil
	e.mu.Unlock()
	tick := time.NewTicker(testPing)
	defer tick.Stop()
	start := time.Now()
	for {
		if err := e.send(ctx); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-e.ctx.Done():
			return nil, context.Cause(e.ctx)
		case <-tick.C:
		}
		since := time.Since(start)
		each(since)
		if since >= long {
			return e.results(), nil
		}
	}
}

func (e *echoes) send(ctx context.Context) error {
	msg := make([]byte, pingLen)
	msg[0] = echoPing
	e.mu.Lock()
	e.last++
	binary.BigEndian.PutUint64(msg[1:], e.last)
	e.sent[e.last] = time.Now()
	e.mu.Unlock()
	_, err := e.ch.Send(ctx, msg)
	return err
}

// results are the round trips so far. What is on its way for less than the
// shortest of them says nothing yet.
func (e *echoes) results() []time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := slices.Clone(e.took)
	var least time.Duration
	if len(all) > 0 {
		least = slices.Min(all)
	}
	for _, at := range e.sent {
		if age := time.Since(at); age > least {
			all = append(all, age)
		}
	}
	return all
}

// ask asks for the peer's counters.
func (e *echoes) ask(ctx context.Context) (testCounters, error) {
	if _, err := e.ch.Send(ctx, []byte{echoAsk}); err != nil {
		return testCounters{}, err
	}
	select {
	case <-ctx.Done():
		return testCounters{}, context.Cause(ctx)
	case <-e.ctx.Done():
		return testCounters{}, context.Cause(e.ctx)
	case c := <-e.news:
		return c, nil
	}
}
