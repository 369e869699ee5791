package l2ext

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/stream"
)

// slowStream takes rate bytes a second, or nothing while rate is 0, and keeps what
// has been written whole.
type slowStream struct {
	rate int
	ends chan struct{} // closed by Reset
	end  func()

	mu       sync.Mutex // guards what follows
	got      bytes.Buffer
	deadline time.Time
}

func newSlowStream(rate int) *slowStream {
	s := &slowStream{rate: rate, ends: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.ends) })
	return s
}

func (s *slowStream) Write(b []byte) (int, error) {
	s.mu.Lock()
	until := s.deadline
	s.mu.Unlock()
	took := time.Hour
	if s.rate > 0 {
		took = time.Duration(len(b)) * time.Second / time.Duration(s.rate)
	}
	select {
	case <-s.ends:
		return 0, io.ErrClosedPipe
	case <-time.After(time.Until(until)):
		return 0, os.ErrDeadlineExceeded
	case <-time.After(took):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(b)
}

func (s *slowStream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	return nil
}

func (s *slowStream) Reset() { s.end() }

// numbers are those of the frames that were written. A stream is made in its bubble.
func (s *slowStream) numbers(t *testing.T) (ns []uint32) {
	t.Helper()
	if s == nil { // not opened yet
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := stream.NewReader(bytes.NewReader(s.got.Bytes())); ; {
		_, frame, err := r.Next()
		if err == io.EOF {
			return ns
		}
		if err != nil {
			t.Fatal(err)
		}
		ns = append(ns, binary.BigEndian.Uint32(frame[len(frame)-4:]))
	}
}

// tcpFrame is a frame of a TCP connection from a port, which ends with a number.
func tcpFrame(port uint16, number uint32, size int) []byte {
	f := benchFrame(remote, local, size)
	f[ether.HeaderLen+9] = 6
	binary.BigEndian.PutUint16(f[ether.HeaderLen+20:], port)
	binary.BigEndian.PutUint32(f[size-4:], number)
	return f
}

// laneTest is lanes whose streams are made by open.
type laneTest struct {
	*lanes
	seg *segment
}

// inLanes runs f in a bubble with lanes to a site that is able.
func inLanes(t *testing.T, open func() (Stream, error), f func(*testing.T, laneTest)) {
	synctest.Test(t, func(t *testing.T) {
		l := laneTest{newLanes(func(context.Context) (Stream, error) { return open() }), &segment{Segment: Segment{VNI: 100, Policy: Policy{Streams: StreamsAuto}}}}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { l.run(ctx) })
		defer wg.Wait()
		defer cancel()
		l.setAble(true)
		l.setLine(true, 100*time.Millisecond)
		f(t, l)
	})
}

func (l laneTest) send(port uint16, number uint32, size int) (taken bool) {
	frame := tcpFrame(port, number, size)
	h, _ := ether.Parse(frame)
	f, ok := ether.FlowOf(h, frame)
	return ok && l.put(time.Now(), l.seg, &f, frame, false)
}

func (l laneTest) count(c Count) int { return int(l.seg.counts[c].Load()) }

func (l laneTest) waiting() (frames, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.lanes.lanes {
		frames += len(l.lanes.lanes[i].frames)
	}
	return frames, l.held
}

// TestLaneOverload: a flow of 200 Mbit/s meets a stream that takes 20. What waits
// is bounded, by time and by bytes, what does not fit is dropped and counted, and
// the sender never waits.
func TestLaneOverload(t *testing.T) {
	var s *slowStream
	inLanes(t, func() (Stream, error) { s = newSlowStream(2_500_000); return s, nil }, func(t *testing.T, l laneTest) {
		const frames, size = 50_000, 1500
		start := time.Now()
		for i := range uint32(frames) {
			if !l.send(1, i+1, size) {
				t.Fatal("a frame was to go as a datagram")
			}
			if n, held := l.waiting(); held > 2_700_000 { // 100 ms of what comes
				t.Fatalf("%d frames, %d bytes wait", n, held)
			}
			time.Sleep(60 * time.Microsecond)
		}
		if took := time.Since(start); took > frames*60*time.Microsecond {
			t.Errorf("sending took %v", took)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		got, dropped := s.numbers(t), l.count(DropStream)
		if last := got[len(got)-1]; last < frames-200 {
			t.Errorf("frame %d was the last that came: not the oldest were dropped", last)
		}
		for i := range got[1:] {
			if got[i] >= got[i+1] {
				t.Fatalf("frame %d came before %d", got[i], got[i+1])
			}
		}
		if len(got)+dropped != frames || len(got) != l.count(Streamed) || l.count(Sent) != len(got) || l.count(SentBytes) != len(got)*size {
			t.Errorf("%d frames came, %d were dropped, of %d; counted %d", len(got), dropped, frames, l.count(Streamed))
		}
		if len(got) < 4500 || len(got) > 7000 { // 2.5 MB/s for 3 s, and for what waits then 1 s more
			t.Errorf("%d frames came: the line has room for 5000 to 6700", len(got))
		}
	})
}

// TestLanesAreBounded: many flows whose streams take nothing together hold no more
// than is allowed.
func TestLanesAreBounded(t *testing.T) {
	inLanes(t, func() (Stream, error) { return newSlowStream(0), nil }, func(t *testing.T, l laneTest) {
		for i := range uint32(20_000) {
			l.send(uint16(i), i, 1500)
		}
		if n, held := l.waiting(); held > laneHeld || n < 5000 {
			t.Errorf("%d frames, %d bytes wait", n, held)
		}
		if l.count(DropStream) < 14_000 {
			t.Errorf("%d frames were dropped", l.count(DropStream))
		}
	})
}

// TestLaneOutage: frames that were waiting when the line went away are given up
// rather than delivered when it is back, and flows go as datagrams meanwhile.
func TestLaneOutage(t *testing.T) {
	var streams []*slowStream
	rate := 0
	inLanes(t, func() (Stream, error) {
		streams = append(streams, newSlowStream(rate))
		return streams[len(streams)-1], nil
	}, func(t *testing.T, l laneTest) {
		for i := range uint32(20) {
			if !l.send(1, i+1, 1500) {
				t.Fatal("a frame was to go as a datagram")
			}
		}
		time.Sleep(streamStall + time.Millisecond)
		synctest.Wait()
		if n, held := l.waiting(); n != 0 || held != 0 || l.count(DropStream) != 20 {
			t.Errorf("%d frames, %d bytes wait after %v; %d were dropped", n, held, streamStall, l.count(DropStream))
		}
		select {
		case <-streams[0].ends:
		default:
			t.Error("the stream was not reset")
		}
		if l.send(1, 21, 1500) {
			t.Error("a frame was to wait for a stream that has just failed")
		}
		time.Sleep(laneRetry)
		rate = 1_000_000
		if !l.send(1, 22, 1500) {
			t.Error("no stream was tried again")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(streams) != 2 {
			t.Fatalf("%d streams were opened", len(streams))
		}
		if got := streams[1].numbers(t); len(got) != 1 || got[0] != 22 {
			t.Errorf("frames %v came on the new stream", got)
		}
	})
}

// TestLaneWithoutStream: the connection for streams is not there.
func TestLaneWithoutStream(t *testing.T) {
	inLanes(t, func() (Stream, error) { return nil, errors.New("down") }, func(t *testing.T, l laneTest) {
		if !l.send(1, 1, 100) {
			t.Fatal("not taken")
		}
		time.Sleep(changeHold)
		synctest.Wait()
		if l.send(1, 2, 100) || l.count(DropStream) != 1 {
			t.Errorf("the next frame waits, too; %d dropped", l.count(DropStream))
		}
	})
}

// TestLaneChange: the way of a flow changes so that nothing is overtaken.
func TestLaneChange(t *testing.T) {
	var made atomic.Pointer[slowStream]
	inLanes(t, func() (Stream, error) { s := newSlowStream(100_000_000); made.Store(s); return s, nil }, func(t *testing.T, l laneTest) {
		l.setLine(false, 100*time.Millisecond)
		if l.send(1, 1, 100) {
			t.Fatal("a stream on a line that loses nothing")
		}
		l.setLine(true, 100*time.Millisecond)
		if !l.send(1, 2, 100) {
			t.Fatal("no stream on a line that is lossy")
		}
		time.Sleep(changeHold - time.Millisecond)
		synctest.Wait()
		if got := made.Load().numbers(t); len(got) != 0 {
			t.Errorf("frames %v may overtake what went as datagrams", got)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := made.Load().numbers(t); len(got) != 1 || got[0] != 2 {
			t.Errorf("frames %v came after the change", got)
		}
		l.setLine(false, 100*time.Millisecond)
		for i := range uint32(20) { // busy: what is under way on the stream may be held up
			if !l.send(1, 3+i, 100) {
				t.Fatal("a datagram may overtake what is on the stream")
			}
			time.Sleep(changeIdle / 2)
		}
		time.Sleep(changeIdle)
		if l.send(1, 30, 100) {
			t.Error("a flow that was silent did not go back to datagrams")
		}
		l.seg.Policy.Streams = StreamsOn
		if !l.send(1, 31, 100) {
			t.Error("the policy was not heard")
		}
		l.setAble(false)
		if l.send(1, 32, 100) || l.count(DropPeerDown) != 1 {
			t.Errorf("a frame waits for a site that is away; %d dropped", l.count(DropPeerDown))
		}
		synctest.Wait()
		select {
		case <-made.Load().ends:
		default:
			t.Error("the stream to a site that is away was kept")
		}
	})
}

// TestLanesSpread: flows use all lanes, and each flow one.
func TestLanesSpread(t *testing.T) {
	var opened atomic.Int32
	inLanes(t, func() (Stream, error) { opened.Add(1); return newSlowStream(1 << 30), nil }, func(t *testing.T, l laneTest) {
		for range 3 {
			for port := range uint16(1000) {
				l.send(port, 0, 100)
			}
			time.Sleep(time.Second)
		}
		if n := opened.Load(); n != laneCount {
			t.Errorf("%d streams were opened for 1000 flows", n)
		}
	})
}
