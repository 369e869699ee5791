package wan

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// steadily is samples of a receiver that gets rate bytes per second from begin
// on, and until then nothing.
func steadily(rate float64, begin, end time.Duration) (s []sample) {
	for d := time.Duration(0); d <= end; d += sampleEvery {
		s = append(s, sample{int64(d), int64(rate * max(d-begin, 0).Seconds())})
	}
	return s
}

func TestDeliver(t *testing.T) {
	const line = 100e6
	for _, tt := range []struct {
		name            string
		rate            float64 // bytes per second
		begin           time.Duration
		goodput, steady float64
		t90             time.Duration
	}{
		{"full from 1 s on", line / 8, time.Second, 0.9, 1, 1090 * time.Millisecond},
		{"half", line / 16, 0, 0.5, 0.5, -1},
		{"nothing", 0, 0, 0, 0, -1},
	} {
		var r Result
		r.deliver(steadily(tt.rate, tt.begin, 11*time.Second), 0, line, 10*time.Second)
		if math.Abs(r.Goodput-tt.goodput) > 0.001 || math.Abs(r.Steady-tt.steady) > 0.001 || r.T90 != tt.t90 {
			t.Errorf("%s: goodput %.3f, steady %.3f, t90 %v; want %.3f, %.3f, %v", tt.name, r.Goodput, r.Steady, r.T90, tt.goodput, tt.steady, tt.t90)
		}
	}
}

// TestCable: what has no rate has no shares of it.
func TestCable(t *testing.T) {
	r := Result{Kind: Cable, Drops: 3}
	r.deliver(steadily(300e6, 0, 11*time.Second), 0, 0, 10*time.Second)
	if got, want := r.extra(), "2400 Mbit/s, own drops 3"; got != want || r.Goodput != 0 || r.Steady != 0 || r.T90 != -1 {
		t.Errorf("%q, want %q; %+v", got, want, r)
	}
}

func TestUse(t *testing.T) {
	before := wanem.Counters{In: wanem.Count{Bytes: 1000}, Lost: wanem.Count{Bytes: 100}}
	after := wanem.Counters{In: wanem.Count{Bytes: 3000}, Lost: wanem.Count{Bytes: 200}, Full: wanem.Count{Bytes: 300}, QueueMax: 1_250_000}
	var r Result
	r.use(before, after, 1600, 100e6)
	if r.Wasted != 0.2 || r.Overflow != 0.15 || r.Wire != 1.25 || r.QueueMax != 100*time.Millisecond {
		t.Errorf("got %+v", r)
	}
}

func TestShape(t *testing.T) {
	samples := steadily(1e6, 0, 5*time.Second)
	for i := range samples { // a burst of 5 kB at 2.5 s
		if samples[i].At > int64(2500*time.Millisecond) {
			samples[i].Bytes += 5000
		}
	}
	var r Result
	r.shape(samples, 1e6)
	if math.Abs(r.Least-1) > 1e-4 || math.Abs(r.Most-1.005) > 1e-4 || math.Abs(r.Peak-1.5) > 0.01 {
		t.Errorf("least %v, most %v, peak %v; want 1, 1.005, 1.5", r.Least, r.Most, r.Peak)
	}
}

// TestStall: what is looked at is the time of the cell, from the first byte on.
func TestStall(t *testing.T) {
	samples := steadily(1e6, 2*time.Second, 12*time.Second)
	for i := range samples { // nothing comes from 5 s to 6.5 s
		if d := time.Duration(samples[i].At); d > 5*time.Second {
			samples[i].Bytes = max(samples[i].Bytes-1_500_000, 3_000_000)
		}
	}
	var r Result
	r.stall(samples, int64(time.Second), 8*time.Second)
	if d := r.Stall - 1500*time.Millisecond; d.Abs() > 2*sampleEvery {
		t.Errorf("%v", r.Stall)
	}
}

func TestPings(t *testing.T) {
	var took []time.Duration
	for i := range 200 {
		took = append(took, time.Duration(200-i)*time.Millisecond)
	}
	var r Result
	r.ping(took)
	if r.PingP50 != 101*time.Millisecond || r.PingP99 != 199*time.Millisecond || r.PingMax != 200*time.Millisecond {
		t.Errorf("p50 %v, p99 %v, max %v", r.PingP50, r.PingP99, r.PingMax)
	}
}

// TestPinger: what comes back is timed, and what does not counts with its age.
func TestPinger(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	p := newPinger(near)
	go func() {
		buf := make([]byte, pingLen)
		for {
			if _, err := far.Read(buf); err != nil {
				return
			}
			if buf[7]%2 == 0 { // every other
				_, _ = far.Write(buf)
			}
		}
	}()
	if err := p.run(4*pingEvery + pingEvery/2); err != nil {
		t.Fatal(err)
	}
	got := p.report()
	if len(got) == 0 || slices.Min(got) <= 0 {
		t.Fatalf("got %v", got)
	}
	if len(got) > 1 && got[1] < got[len(got)-1] {
		t.Errorf("the second never came back, and counts with %v: %v", got[1], got)
	}
	far.Close()
}

func TestSelect(t *testing.T) {
	rows, err := SelectRows([]string{"500M", "urgent"})
	if err != nil || len(rows) != 9 {
		t.Errorf("got %d rows, %v", len(rows), err)
	}
	if _, err := SelectRows([]string{"no such row"}); err == nil {
		t.Error("a row that is not there")
	}
	if _, err := SelectPeers([]string{"tcp-bbr", "carrier-pigeon"}); err == nil || !strings.Contains(err.Error(), "quic-x16") {
		t.Errorf("got %v, want the names that there are", err)
	}
	seen := make(map[string]bool)
	for _, r := range Rows() {
		if err := r.Line.Check(); err != nil || seen[r.Name] {
			t.Errorf("row %s: %v, seen before %v", r.Name, err, seen[r.Name])
		}
		seen[r.Name] = true
	}
}

func TestStatFields(t *testing.T) {
	f := statFields("4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0")
	if f[3] != "S" || f[14] != "111" || f[15] != "222" {
		t.Errorf("got %q", f)
	}
	if f := statFields(""); len(f) != 3 {
		t.Errorf("nothing gives %q", f)
	}
}

// TestTransports runs both ends of each transport over the loopback: bytes are
// counted, and messages come back.
func TestTransports(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("choosing TCP's congestion controller needs Linux")
	}
	dir, err := identities()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for i, name := range []string{"tcp-cubic", "quic-x1", "longhaul"} {
		t.Run(name, func(t *testing.T) {
			peers, err := SelectPeers([]string{name})
			if err != nil {
				t.Fatal(err)
			}
			addr := fmt.Sprintf("127.0.81.%d:7447", i+1)
			to := startEnd(t, endConfig{Peer: peers[0], Addr: addr, Dir: filepath.Join(dir, siteB)})
			from := startEnd(t, endConfig{Peer: peers[0], Addr: addr, Dir: filepath.Join(dir, siteA), Sends: true, Pings: true})
			from(endRequest{Op: "send", For: time.Minute})
			var first time.Duration // of the first ping: its age, until it has come back
			begin := time.Now()
			for range time.Tick(sampleEvery) {
				got, pings := to(endRequest{Op: "report"}).Samples, from(endRequest{Op: "report"}).Pings
				if len(got) > 0 && got[len(got)-1].Bytes > 10*chunkLen && len(pings) > 3 && pings[0] == first {
					return
				}
				if len(pings) > 0 {
					first = pings[0]
				}
				if time.Since(begin) > 30*time.Second {
					t.Fatalf("%d pings, of which the first took %v or is away; samples end with %v", len(pings), first, got[max(len(got)-3, 0):])
				}
			}
		})
	}
}

// startEnd runs ServeEnd, and returns what asks it.
func startEnd(t *testing.T, c endConfig) func(any) endReply {
	t.Helper()
	in, requests := io.Pipe()
	// The kernel's pipe, as between the processes of a cell: it keeps the end of a line
	// that the decoder leaves, where io.Pipe would hold up who wrote it.
	replies, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { requests.Close() })
	go func() {
		defer out.Close()
		if err := ServeEnd(in, out); err != nil {
			t.Errorf("serving an end: %v", err)
		}
	}()
	answers := json.NewDecoder(replies)
	ask := func(q any) (r endReply) {
		if err := json.NewEncoder(requests).Encode(q); err != nil {
			t.Fatal(err)
		}
		if err := answers.Decode(&r); err != nil || r.Error != "" {
			t.Fatalf("%+v: %v, %s", q, err, r.Error)
		}
		return r
	}
	ask(c)
	return ask
}
