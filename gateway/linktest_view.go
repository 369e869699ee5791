package gateway

import (
	"fmt"
	"time"
)

// LinkTestState is where a test of a link stands.
type LinkTestState string

// The states of a test.
const (
	LinkTestRunning LinkTestState = "running"
	LinkTestDone    LinkTestState = "done"
	LinkTestFailed  LinkTestState = "failed"
)

// LinkTest is a test of the link to a site, as an operator sees it.
type LinkTest struct {
	Site     string        `json:"site" doc:"the site at the other end"`
	State    LinkTestState `json:"state" doc:"running, done or failed" enum:"running,done,failed"`
	Phase    string        `json:"phase" doc:"what is being measured now, in words"`
	Progress float64       `json:"progress" doc:"how far it is, 0 to 1"`
	Started  time.Time     `json:"started" doc:"when it began"`
	Error    string        `json:"error,omitempty" doc:"why it failed"`

	Address    string  `json:"address" doc:"address of the peer that is in use"`
	Carrier    string  `json:"carrier" doc:"what carries the link: quic or tcp"`
	Controller string  `json:"controller" doc:"congestion controller in use"`
	Conns      int     `json:"connections" doc:"connections of the link at the end of the test"`
	Rate       int64   `json:"rate_cap_bps" doc:"cap of what this end sends in bits per second, 0 for none"`
	MTU        int     `json:"mtu_bytes" doc:"largest IP packet that the link uses in bytes; 1480 is the most that it tries"`
	RTT        float64 `json:"rtt_idle_ms" doc:"median round trip of an urgent message while the link was idle, in milliseconds"`
	RTTMin     float64 `json:"rtt_min_ms" doc:"the shortest of them"`

	There *LinkWay `json:"there,omitempty" doc:"from here to the other site"`
	Back  *LinkWay `json:"back,omitempty" doc:"from the other site to here"`

	Moves   int     `json:"jobs_running" doc:"moves that were running here; they come first, and what they used is missing in the figures"`
	Idle4G  float64 `json:"idle_4gib_vm_s" doc:"seconds that an idle VM of 4 GiB would take there, reduced as a first move usually is; -1 when it cannot be told"`
	Raw4G   float64 `json:"raw_4gib_s" doc:"seconds that 4 GiB would take there that cannot be reduced; -1 when it cannot be told"`
	Verdict string  `json:"verdict" doc:"what this means, in words"`
}

// LinkWay is one direction of a link under load.
type LinkWay struct {
	Goodput int64   `json:"goodput_bps" doc:"bits per second that arrived, from a cold start over the whole time"`
	Steady  int64   `json:"steady_bps" doc:"bits per second that arrived in the second half"`
	T90     float64 `json:"t90_s" doc:"seconds until 90 % of the steady rate were reached; -1: never"`
	RTT     float64 `json:"rtt_loaded_ms" doc:"median round trip of an urgent message meanwhile, in milliseconds"`
	RTTP99  float64 `json:"rtt_loaded_p99_ms" doc:"99 % of them took no longer"`
	Sent    int64   `json:"packets_sent" doc:"packets sent meanwhile"`
	Lost    int64   `json:"packets_lost" doc:"of these, taken for lost and sent again; -1 when it cannot be told"`
}

// LossShare is the share of packets lost, 0 to 1, or -1 when it cannot be told.
func (w LinkWay) LossShare() float64 {
	if w.Lost < 0 || w.Sent <= 0 {
		return -1
	}
	return min(float64(w.Lost)/float64(w.Sent), 1)
}

const (
	vm4GiB = 4 << 30 // bytes
	// usualReduction is what is left of a first move of a Debian guest to a peer
	// that knows nothing of it (bench/results/reduction-2026-11-26.txt, cold).
	usualReduction = 0.264
	// longQueue is by how many milliseconds bulk may delay an urgent message
	// before an operator should know.
	longQueue = 30.0
	// muchLoss is the share above which a line is not what providers sell.
	muchLoss = 0.02
)

// judge fills in what the figures mean.
func (t *LinkTest) judge() {
	t.Idle4G, t.Raw4G = -1, -1
	if t.There == nil || t.There.Steady <= 0 {
		t.Verdict = "nothing got through"
		return
	}
	t.Raw4G = vm4GiB * 8 / float64(t.There.Steady)
	t.Idle4G = usualReduction * t.Raw4G
	t.Verdict = fmt.Sprintf("this line carries an idle 4 GiB VM in about %s, and in %s if nothing of it can be reduced",
		inWords(t.Idle4G), inWords(t.Raw4G))
	if t.Moves > 0 {
		t.Verdict += "; moves were running, without them it is better"
	}
	if loss := t.There.LossShare(); loss > muchLoss {
		t.Verdict += fmt.Sprintf("; it loses %.1f %% of the packets, which is much: ask who runs it", 100*loss)
	}
	if wait := t.There.RTT - t.RTT; wait > longQueue && t.Rate == 0 {
		t.Verdict += fmt.Sprintf("; under load a queue of %.0f ms stands before it: a link.rate a little below what it carries keeps that short", wait)
	}
}

// inWords is a time of seconds, as exact as a forecast can be.
func inWords(seconds float64) string {
	switch {
	case seconds < 10:
		return fmt.Sprintf("%.1f s", seconds)
	case seconds < 100:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 100*60:
		return fmt.Sprintf("%.0f min", seconds/60)
	}
	return fmt.Sprintf("%.0f h", seconds/3600)
}
