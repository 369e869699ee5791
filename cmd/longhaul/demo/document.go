package demo

import (
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// Document is what "longhaul demo --json" writes. Times are milliseconds,
// sizes bytes.
type Document struct {
	OK       bool     `json:"ok"` // nothing wrong, nothing lost that should not be
	Problems []string `json:"problems,omitempty"`
	VM       VM       `json:"vm"`
	Link     Link     `json:"link"`
	Longhaul *Figures `json:"longhaul"`        // of the first move
	Plain    *Figures `json:"plain,omitempty"` // the same by plain QEMU over TCP
	Moves    []Move   `json:"moves"`           // all moves by Longhaul
	Drift    *Drift   `json:"drift,omitempty"` // with several moves
	Took     int64    `json:"took_ms"`         // the whole demo
}

// VM is the guest that moves.
type VM struct {
	Name   string `json:"name"`
	Memory int64  `json:"memory_bytes"`
	IP     string `json:"ip"`
	MAC    string `json:"mac"`
	Accel  string `json:"accel"`
	Dirty  int    `json:"dirty_pages_per_second"`
}

// Link is the emulated WAN.
type Link struct {
	Rate int64   `json:"rate_bps"`
	RTT  float64 `json:"rtt_ms"`
	Loss float64 `json:"loss"` // share of packets, each way
}

// Figures is what a move took.
type Figures struct {
	Total         int64  `json:"total_ms"`
	Downtime      int64  `json:"downtime_ms"` // STOP to RESUME by this machine's clock
	LongestGap    int64  `json:"longest_gap_ms"`
	PingsSent     int    `json:"pings_sent"`
	PingsLost     int    `json:"pings_lost"`
	SessionAlive  bool   `json:"session_alive"`
	SessionGap    int64  `json:"session_gap_ms"`
	SameIP        bool   `json:"same_ip"`
	SameMAC       bool   `json:"same_mac"`
	PagesVerified int64  `json:"pages_verified"`
	PagesWrong    int64  `json:"pages_wrong"`
	BlocksWrong   int64  `json:"blocks_wrong"`
	ForeignBeats  int64  `json:"foreign_beats"` // signs of a second copy
	Logical       int64  `json:"logical_bytes"` // written by the source QEMU
	Wire          int64  `json:"wire_bytes"`    // all headers, as counted by the emulator
	Rounds        int    `json:"rounds"`
	Relaxed       bool   `json:"downtime_relaxed,omitempty"` // plain QEMU did not converge within its limit
	TCP           string `json:"tcp,omitempty"`              // congestion control of plain QEMU's connection
}

// Move is one move by Longhaul.
type Move struct {
	From      string  `json:"from"`
	To        string  `json:"to"`
	State     string  `json:"state"`
	Error     string  `json:"error,omitempty"`
	Total     int64   `json:"total_ms"`
	Downtime  int64   `json:"downtime_ms"`
	Logical   int64   `json:"logical_bytes"`
	Wire      int64   `json:"wire_bytes"`
	Rounds    int     `json:"rounds"`
	Reduction float64 `json:"reduction"`
	Pages     int64   `json:"pages"`
	Zero      int64   `json:"zero_pages"`
	Refs      int64   `json:"references"`
	Deltas    int64   `json:"deltas"`

	Network *gateway.Silence `json:"network,omitempty"` // what the gateways saw of the switchover
}

func linkOf(l lab.Link) Link {
	return Link{Rate: l.Rate, RTT: float64(l.RTT.Microseconds()) / 1000, Loss: l.Loss}
}

func ms(d time.Duration) int64 { return d.Milliseconds() }
