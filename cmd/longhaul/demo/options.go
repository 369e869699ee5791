// Package demo sets two sites and a WAN up on this machine and moves a real VM
// between them.
package demo

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/internal/conffile"
)

// Options of a demo, as the flags of "longhaul demo" say them.
type Options struct {
	Link   Link  // the emulated WAN
	Memory int64 // of the guest, in bytes
	Moves  int   // back and forth; at least 1
	Plain  bool  // do the same move by plain QEMU over TCP, to compare
	Keep   bool  // leave the lab up and say how to look into it
	JSON   bool  // one document on Stdout

	Stdout io.Writer // data
	Stderr io.Writer // progress
}

// A Link is what the emulated WAN does to packets.
type Link struct {
	Rate int64         // bits per second
	RTT  time.Duration // round trip, half of it each way
	Loss float64       // share of packets lost, 0 to 1
}

// DefaultLink is a rented line across a continent.
func DefaultLink() Link {
	return Link{Rate: 200_000_000, RTT: 60 * time.Millisecond, Loss: 0.0005}
}

// String is the link in the form that Set takes.
func (l *Link) String() string {
	return fmt.Sprintf("rate=%s,rtt=%s,loss=%s%%", conffile.Rate(l.Rate), l.RTT,
		strconv.FormatFloat(l.Loss*100, 'f', -1, 64))
}

// Type names the value in help texts.
func (l *Link) Type() string { return "rate=,rtt=,loss=" }

// Set reads "rate=200Mbit,rtt=60ms,loss=0.05%"; what is not named stays as it is.
// Loss without a % is a share.
func (l *Link) Set(text string) error {
	next := *l
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if err := next.set(key, value); err != nil {
			return fmt.Errorf("%s: %w", or(key, "empty part"), err)
		}
	}
	*l = next
	return nil
}

func (l *Link) set(key, value string) (err error) {
	switch key {
	case "rate":
		var r conffile.Rate
		if err := r.Set(value); err != nil {
			return err
		}
		l.Rate = int64(r)
	case "rtt":
		if l.RTT, err = time.ParseDuration(value); err == nil && l.RTT < 0 {
			err = errors.New("is negative")
		}
	case "loss":
		l.Loss, err = share(value)
	default:
		return errors.New("is none of rate, rtt and loss")
	}
	return err
}

func share(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", text)
	}
	if percent {
		f /= 100
	}
	if !(f >= 0 && f < 1) { // also catches NaN
		return 0, fmt.Errorf("%q is not between 0 and 100%%", text)
	}
	return f, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
