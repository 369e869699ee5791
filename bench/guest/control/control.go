// Package control is what host and guest say to each other: JSON lines over
// TCP port 7000 of the guest, one answer for each request, in order; and the
// records of the session on port 7.
package control

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Ports of the guest.
const (
	Port        = 7000 // requests
	SessionPort = 7    // ticks and echo
)

// Beat is how often the guest's heartbeat counter grows, in milliseconds of
// the guest's own time.
const Beat = 10

// Operations that a Request may ask for.
const (
	OpStats  = "stats"  // counters and state
	OpDirty  = "dirty"  // change how the guest dirties memory and disk
	OpVerify = "verify" // check every page, block and file now
)

// Request is one line from the host.
type Request struct {
	Op    string `json:"op"`
	Dirty *Dirty `json:"dirty,omitempty"` // of OpDirty
}

// Dirty is how the guest dirties its memory and its disk.
type Dirty struct {
	Rate   int `json:"rate"`   // pages rewritten each second
	Hot    int `json:"hot"`    // pages among which they are chosen; 0 means all
	Sparse int `json:"sparse"` // per cent of the rewrites that change only a few words
	Disk   int `json:"disk"`   // blocks written each second
}

// Reply is one line from the guest.
type Reply struct {
	Error   string   `json:"error,omitempty"`
	Stats   *Stats   `json:"stats,omitempty"`
	Verdict *Verdict `json:"verdict,omitempty"`
}

// Stats of a guest.
type Stats struct {
	Boot      string `json:"boot_id"`       // 32 hex digits, drawn at boot
	Uptime    int64  `json:"uptime_ms"`     // since the workload began, in guest time
	Heartbeat uint64 `json:"heartbeat"`     // beats since the workload began
	Pages     int64  `json:"pages"`         // pages that are verified
	Blocks    int64  `json:"blocks"`        // blocks of the disk that are verified
	Dirty     Dirty  `json:"dirty"`         // how memory is being dirtied
	Rewrites  uint64 `json:"rewrites"`      // pages rewritten so far
	Writes    uint64 `json:"writes"`        // blocks written so far
	Foreign   uint64 `json:"foreign_beats"` // times that somebody else had written our block of the disk: another copy of us runs
	Problem   string `json:"problem,omitempty"`
}

// Verdict is what a check of everything found.
type Verdict struct {
	PagesVerified  int64    `json:"pages_verified"`
	PagesWrong     int64    `json:"pages_wrong"` // the sum of the next five
	Lost           int64    `json:"lost"`        // zero, where there should be content
	Stale          int64    `json:"stale"`       // an earlier version
	Swapped        int64    `json:"swapped"`     // another page's content
	Torn           int64    `json:"torn"`        // anything else
	Journal        int64    `json:"journal"`     // pages whose expected version is itself damaged
	BlocksVerified int64    `json:"blocks_verified"`
	BlocksWrong    int64    `json:"blocks_wrong"`
	FilesVerified  int64    `json:"files_verified"` // files of the initramfs, which live in the page cache
	FilesWrong     int64    `json:"files_wrong"`
	First          []string `json:"first,omitempty"` // the first few faults in words
	Took           int64    `json:"took_ms"`         // in guest time
}

// OK tells whether nothing was wrong.
func (v Verdict) OK() bool {
	return v.PagesWrong == 0 && v.BlocksWrong == 0 && v.FilesWrong == 0 && v.PagesVerified > 0
}

// Record is what crosses a session, in both directions:
//
//	| Kind (1) | zero (7) | Seq (8) | Beat (8) |   big endian
//
// The guest sends a tick every [Beat] ms with Seq 1, 2, 3, …, and sends back
// each echo that it gets, with its own heartbeat in Beat.
type Record struct {
	Kind byte
	Seq  uint64
	Beat uint64
}

// Kinds of a Record.
const (
	Tick byte = 1
	Echo byte = 2
)

// RecordLen is the length of a Record in bytes.
const RecordLen = 24

// Append appends r to b.
func (r Record) Append(b []byte) []byte {
	b = append(b, r.Kind, 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	return binary.BigEndian.AppendUint64(b, r.Beat)
}

// ReadRecord reads one record.
func ReadRecord(from io.Reader) (Record, error) {
	var b [RecordLen]byte
	if _, err := io.ReadFull(from, b[:]); err != nil {
		return Record{}, err
	}
	if b[0] != Tick && b[0] != Echo || [7]byte(b[1:8]) != [7]byte{} {
		return Record{}, fmt.Errorf("record of a session begins with %x", b[:8])
	}
	return Record{b[0], binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, nil
}
