package reduction

import (
	"slices"
	"time"
)

// Case is a stream that crosses, and what has crossed before it.
type Case struct {
	Name   string
	Before [][]byte // in the order in which they crossed; all are known to both ends
	Stream []byte
	// Home: the stream crosses in the other direction than those before it.
	Home bool
	// Blind: compressors that know nothing of Before are measured as well.
	Blind bool
}

// Input is the streams of bench/streams. Those that are nil are left out.
type Input struct{ Deb1, Disk, Calm, Busy, Deb2, Sparse []byte }

// cases of the table.
func cases(in Input) []Case {
	deb1 := [][]byte{in.Deb1}
	all := []Case{
		{Name: "cold", Stream: in.Deb1, Blind: true},
		{Name: "second", Before: deb1, Stream: in.Deb2, Blind: true},
		{Name: "back", Before: deb1, Stream: in.Calm, Blind: true},
		{Name: "back with its disk", Before: [][]byte{in.Disk, in.Deb1}, Stream: in.Calm, Home: true, Blind: true},
		{Name: "back busy", Before: deb1, Stream: in.Busy, Blind: true},
		{Name: "sparse", Stream: in.Sparse, Blind: true},
		{Name: "retry", Before: [][]byte{in.Deb1[:len(in.Deb1)/10*9]}, Stream: in.Deb1},
		{Name: "known", Before: deb1, Stream: in.Deb1},
	}
	return slices.DeleteFunc(all, func(c Case) bool {
		return c.Stream == nil || slices.ContainsFunc(c.Before, func(b []byte) bool { return b == nil })
	})
}

// before is how many bytes have crossed before the stream.
func (c *Case) before() (n int) {
	for _, b := range c.Before {
		n += len(b)
	}
	return n
}

// Row is one method on one case.
type Row struct {
	Case   string        `json:"case"`
	Method string        `json:"method"`
	Raw    int64         `json:"raw_bytes"`
	Left   int64         `json:"left_bytes"`
	Encode time.Duration `json:"encode_ns"`           // processor time
	Serial time.Duration `json:"serial_ns,omitempty"` // of Encode: what cannot run in parallel
	Decode time.Duration `json:"decode_ns,omitempty"` // processor time
	Pages  *Pages        `json:"pages,omitempty"`
}

// Pages is how our path sent the pages.
type Pages struct {
	Zero     int64 `json:"zero"`
	Refs     int64 `json:"refs"`
	Deltas   int64 `json:"deltas"`
	Literals int64 `json:"literals"`
}

// Percent is what is left of the stream.
func (r Row) Percent() float64 { return 100 * float64(r.Left) / float64(max(r.Raw, 1)) }

// speed is MB of stream in each second of took, 0 if that is not known.
func (r Row) speed(took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(r.Raw) / 1e6 / took.Seconds()
}
