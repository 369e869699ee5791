package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

// A test of a link is three channels that the testing end opens:
//
//	echo    urgent both ways: what begins with echoPing comes back as it is, what
//	        is echoAsk alone is answered with the peer's counters (testCounters)
//	sink    bulk: the peer throws away what comes
//	source  bulk: the peer sends for the time that the header says
//
// A peer holds no more of them than one of each kind and site, none for longer
// than testServed, and its bulk gets what moves leave over.
const (
	testEcho   = "echo"
	testSink   = "sink"
	testSource = "source"
)

// testHeader opens a channel of a test.
type testHeader struct {
	Version int           `json:"version"`
	Part    string        `json:"part"`             // testEcho, testSink or testSource
	Seed    uint64        `json:"seed,omitempty"`   // of what a source sends
	For     time.Duration `json:"for_ns,omitempty"` // how long it sends
}

// testCounters is a peer's answer to echoAsk: packets of the link so far.
type testCounters struct {
	Sent int64 `json:"sent"`
	Lost int64 `json:"lost"`
}

// The first byte of a message of the echo channel.
const (
	echoPing = 1
	echoAsk  = 2
)

const (
	// testServed is longer than a whole test takes, so that a peer that is cut
	// off does not keep one alive.
	testServed = 20 * time.Second
	// testLoadMost bounds what a peer may ask us to send for.
	testLoadMost = 10 * time.Second
	// maxEcho bounds an echoed message in bytes.
	maxEcho = 1 << 10
	// testBlock is one message of bulk; testBlocks of them are made from the
	// seed, and sent again and again: QUIC encrypts each time anew.
	testBlock  = 64 << 10
	testBlocks = 16
)

func parseTestHeader(b []byte) (testHeader, error) {
	var h testHeader
	if err := decodeJSON(b, &h); err != nil {
		return h, fmt.Errorf("reading header of a test: %w", err)
	}
	switch {
	case h.Version != protoVersion:
		return h, fmt.Errorf("reading header of a test: version %d, this gateway speaks %d", h.Version, protoVersion)
	case h.Part != testEcho && h.Part != testSink && h.Part != testSource:
		return h, fmt.Errorf("reading header of a test: no part %.20q", h.Part)
	case h.For < 0 || h.For > testLoadMost:
		return h, fmt.Errorf("reading header of a test: a source of %v; %v is the most", h.For, testLoadMost)
	}
	return h, nil
}

// served are the parts of tests that peers have here.
type served struct {
	// own tells whether this gateway tests the link to a site itself, so that the
	// site has to wait. Nil: it never does.
	own func(site string) bool

	mu    sync.Mutex // guards parts
	parts map[string]bool
}

// enter takes the one place that a site has for a part; leave gives it back.
func (s *served) enter(site, part string) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := site + "/" + part
	if s.parts[key] {
		return nil, false
	}
	if s.parts == nil {
		s.parts = make(map[string]bool)
	}
	s.parts[key] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.parts, key)
	}, true
}

// serves tells whether a site tests the link to here.
func (s *served) serves(site string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[site+"/"+testEcho]
}

// serve is the peer's side of one channel of a test.
func (s *served) serve(ctx context.Context, ch *tunnel.Channel) {
	ctx, cancel := context.WithTimeout(ctx, testServed)
	defer cancel()
	h, err := parseTestHeader(ch.Header())
	if err == nil {
		err = s.part(ctx, ch, h)
	}
	if err != nil {
		ch.Abort(err.Error())
	}
}

var (
	errTestBusy = errors.New("a test of this link is running already")
	errTestOver = errors.New("the time is over")
)

func (s *served) part(ctx context.Context, ch *tunnel.Channel, h testHeader) error {
	if h.Part == testEcho && s.own != nil && s.own(ch.Site()) {
		return errTestBusy
	}
	leave, ok := s.enter(ch.Site(), h.Part)
	if !ok {
		return errTestBusy
	}
	defer leave()
	switch h.Part {
	case testSink:
		return drain(ctx, ch, func(int) {})
	case testSource:
		ch.SetFlow(ch.Link().NewBackgroundFlow("link test"))
		ctx, cancel := context.WithTimeout(ctx, h.For)
		defer cancel()
		pour(ctx, ch, h.Seed)
		return errTestOver // and what is still on its way is of no use
	}
	return echo(ctx, ch)
}

// drain takes what comes, and counts it, until the peer ends it.
func drain(ctx context.Context, ch *tunnel.Channel, count func(n int)) error {
	for {
		m, err := ch.Recv(ctx)
		if err != nil {
			return err
		}
		count(len(m.Data))
		tunnel.Recycle(m.Data)
		ch.Done(m.Seq)
	}
}

// pour sends what cannot be reduced until ctx or the channel ends.
func pour(ctx context.Context, ch *tunnel.Channel, seed uint64) {
	blocks := testData(seed)
	for i := 0; ; i++ {
		// Nobody changes a block, so it may be in several messages at once.
		if _, err := ch.Send(ctx, blocks[i%len(blocks)]); err != nil {
			return
		}
	}
}

// testData is blocks that look random and are a function of the seed.
func testData(seed uint64) [][]byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24),
		byte(seed >> 32), byte(seed >> 40), byte(seed >> 48), byte(seed >> 56)})
	blocks := make([][]byte, testBlocks)
	for i := range blocks {
		blocks[i] = make([]byte, testBlock)
		_, _ = r.Read(blocks[i]) // never fails
	}
	return blocks
}

// echo answers pings and questions until the peer ends the channel.
func echo(ctx context.Context, ch *tunnel.Channel) error {
	for {
		m, err := ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return ch.CloseSend(ctx)
		}
		if err != nil {
			return err
		}
		answer, err := echoAnswer(ch.Link(), m.Data)
		if err != nil {
			return err
		}
		if _, err := ch.Send(ctx, answer); err != nil {
			return err
		}
		ch.Done(m.Seq)
	}
}

func echoAnswer(l *tunnel.Link, msg []byte) ([]byte, error) {
	switch {
	case len(msg) > maxEcho:
		return nil, fmt.Errorf("a ping of %d bytes; %d is the most", len(msg), maxEcho)
	case len(msg) > 0 && msg[0] == echoPing:
		return bytes.Clone(msg), nil
	case len(msg) == 1 && msg[0] == echoAsk:
		return append([]byte{echoAsk}, encodeJSON(packets(l.State()))...), nil
	}
	return nil, errors.New("neither a ping nor a question")
}

// packets is what a link has sent and lost so far.
func packets(s tunnel.State) testCounters {
	return testCounters{Sent: int64(s.PacketsSent), Lost: int64(s.PacketsLost)}
}
