package lab

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// Link is a WAN as people write it: "rate=200Mbit,rtt=60ms,loss=0.05%". Both
// directions are alike. It is a flag.Value.
type Link struct {
	Rate      int64         // bits per second; 0 is no limit
	RTT       time.Duration // round trip; half of it each way
	Jitter    time.Duration // of one way, at most
	Loss      float64       // share of packets lost, each way
	Burst     float64       // mean number of packets lost in a row
	Reorder   float64       // share of packets that are overtaken
	Duplicate float64       // share of packets that come twice
	Queue     int64         // bytes before the bottleneck; 0 is one bandwidth-delay product
}

// DefaultLink is the demo's: long, thin and lossy.
func DefaultLink() Link {
	return Link{Rate: 200e6, RTT: 60 * time.Millisecond, Loss: 0.0005}
}

// Profile of one direction.
func (l Link) Profile() wanem.Profile {
	return wanem.Profile{Rate: l.Rate, Delay: l.RTT / 2, Jitter: l.Jitter, Loss: l.Loss, Burst: l.Burst,
		Reorder: l.Reorder, Duplicate: l.Duplicate, Queue: l.Queue}
}

// ParseLink reads a link; what is not named is as in DefaultLink.
func ParseLink(text string) (Link, error) {
	l := DefaultLink()
	return l, l.Set(text)
}

// Set changes what text names. An error changes nothing.
func (l *Link) Set(text string) error {
	next := *l
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return fmt.Errorf("link: %q is not key=value", part)
		}
		if err := next.set(key, value); err != nil {
			return fmt.Errorf("link: %s=%s: %w", key, value, err)
		}
	}
	if err := next.Profile().Check(); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	*l = next
	return nil
}

func (l *Link) set(key, value string) (err error) {
	switch key {
	case "rate":
		l.Rate, err = parseRate(value)
	case "rtt":
		l.RTT, err = time.ParseDuration(value)
	case "jitter":
		l.Jitter, err = time.ParseDuration(value)
	case "loss":
		l.Loss, err = parseShare(value)
	case "burst":
		l.Burst, err = strconv.ParseFloat(value, 64)
	case "reorder":
		l.Reorder, err = parseShare(value)
	case "duplicate":
		l.Duplicate, err = parseShare(value)
	case "queue":
		l.Queue, err = parseUnits(value, byteUnits())
	default:
		err = errors.New("the keys are rate, rtt, jitter, loss, burst, reorder, duplicate and queue")
	}
	return err
}

func (l Link) String() string {
	s := fmt.Sprintf("rate=%s,rtt=%v,loss=%s%%", formatRate(l.Rate), l.RTT, strconv.FormatFloat(l.Loss*100, 'g', -1, 64))
	if l.Jitter > 0 {
		s += fmt.Sprintf(",jitter=%v", l.Jitter)
	}
	if l.Burst > 1 {
		s += fmt.Sprintf(",burst=%g", l.Burst)
	}
	if l.Reorder > 0 {
		s += fmt.Sprintf(",reorder=%g", l.Reorder)
	}
	if l.Duplicate > 0 {
		s += fmt.Sprintf(",duplicate=%g", l.Duplicate)
	}
	if l.Queue > 0 {
		s += fmt.Sprintf(",queue=%d", l.Queue)
	}
	return s
}

// Type names the value in help texts.
func (l *Link) Type() string { return "rate=,rtt=,loss=" }

type unit struct {
	name string
	size float64
}

// rateUnits and byteUnits: longer names first, because a suffix is cut.
func rateUnits() []unit {
	return []unit{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}}
}

func byteUnits() []unit { return []unit{{"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}} }

func parseRate(s string) (int64, error) {
	return parseUnits(strings.TrimSuffix(s, "/s"), rateUnits())
}

func parseUnits(s string, units []unit) (int64, error) {
	size := 1.0
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			s, size = number, u.size
			break
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err == nil && !(v >= 0 && v*size < 1e15) {
		err = errors.New("out of range")
	}
	return int64(v * size), err
}

// parseShare reads "0.05%" or "0.0005".
func parseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	return v, err
}

func formatRate(r int64) string {
	for _, u := range rateUnits()[:3] {
		if r > 0 && r%int64(u.size) == 0 {
			return strconv.FormatInt(r/int64(u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(r, 10) + "bit"
}
