// Package loglimit keeps a log readable, and its disk free, whatever others do. Each
// kind of line may be written so often; what goes beyond that is counted, and the number
// stands on the next line of its kind. Whoever can have a line written (a peer by its
// messages, a guest by its frames) can have it written a million times.
package loglimit

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Burst is how many lines of one kind are written at once: an operator's evening of
	// changes, or the NICs of some dozen VMs.
	Burst = 64
	// Every is the time after which one more is written. A kind that never stops has
	// 300 KB in a day.
	Every = time.Minute

	// maxKinds bounds what is remembered, to half a megabyte. What comes beyond it is of one kind
	// for each level: who fills it with warnings leaves the errors their share.
	maxKinds = 1024
)

// A Handler writes to another one, within its limits. Lines are of one kind when they
// have the same message, and the same values of the attributes that tell kinds apart. It
// is safe for concurrent use.
type Handler struct {
	next  slog.Handler
	apart []string // keys of attributes
	fixed string   // of the kind, by WithAttrs
	group bool     // what is added now is in a group, and tells nothing apart
	all   *kinds
}

// New limits what is written to next, by message and by the attributes with the keys
// apart. Their values must be few. A Handler of this package is returned as it is.
func New(next slog.Handler, apart ...string) *Handler {
	if h, ok := next.(*Handler); ok {
		return h
	}
	return &Handler{next: next, apart: apart, all: &kinds{byName: make(map[string]*kind)}}
}

// kinds are what is remembered, of a Handler and of those that were made from it.
type kinds struct {
	mu     sync.Mutex // guards what follows
	byName map[string]*kind
	swept  time.Time // when what is over was forgotten last
}

// kind is one of them.
type kind struct {
	free time.Time // when Burst lines may be written again
	left int       // lines left out since one was written

	// For Report, of the last that was left out.
	out   *Handler
	level slog.Level
	about []slog.Attr
}

// Unlimited is the handler to which h writes, for lines that nobody else can cause.
func (h *Handler) Unlimited() slog.Handler { return h.next }

// Enabled asks the other handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle writes a line, or counts it.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	now := r.Time
	if now.IsZero() {
		now = time.Now()
	}
	left, ok := h.take(now, r)
	if !ok {
		return nil
	}
	if left > 0 {
		r = r.Clone() // the caller may hand the same record to others
		r.AddAttrs(slog.Int("left_out", left))
	}
	return h.next.Handle(ctx, r)
}

// take tells whether a line may be written, and how many of its kind were not since the last.
func (h *Handler) take(now time.Time, r slog.Record) (left int, ok bool) {
	name, about := h.kindOf(r)
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	k := h.all.find(now, name, r.Level)
	if k.take(now) {
		left, k.left, k.about = k.left, 0, nil
		return left, true
	}
	k.left++
	k.out, k.level, k.about = h, r.Level, about
	return 0, false
}

// kindOf names the kind of a line, and tells what makes it up.
func (h *Handler) kindOf(r slog.Record) (name string, about []slog.Attr) {
	about = append(about, slog.String("message", r.Message))
	var b strings.Builder
	b.WriteString(r.Message)
	b.WriteString(h.fixed)
	if !h.group {
		r.Attrs(func(a slog.Attr) bool {
			if slices.Contains(h.apart, a.Key) {
				writeAttr(&b, a)
				about = append(about, a)
			}
			return true
		})
	}
	return b.String(), about
}

func writeAttr(b *strings.Builder, a slog.Attr) {
	b.WriteString("\x00" + a.Key + "\x00" + a.Value.String())
}

// find finds the kind of a line, or makes it. It needs all.mu.
func (all *kinds) find(now time.Time, name string, level slog.Level) *kind {
	k := all.byName[name]
	if k == nil && len(all.byName) >= maxKinds {
		if now.Sub(all.swept) >= Every { // or each line would cost a look at all
			all.swept = now
			all.forget(now)
		}
		if len(all.byName) >= maxKinds {
			name = "\x00" + level.String() // no line's: a key would be followed by a value
			k = all.byName[name]
		}
	}
	if k == nil {
		k = &kind{}
		all.byName[name] = k
	}
	return k
}

// forget drops what makes no difference any more. It needs all.mu.
func (all *kinds) forget(now time.Time) {
	for name, k := range all.byName {
		if k.left == 0 && !k.free.After(now) {
			delete(all.byName, name)
		}
	}
}

// take tells whether one more line may be written.
func (k *kind) take(now time.Time) bool {
	if k.free.Before(now) {
		k.free = now
	}
	if k.free.Sub(now) > (Burst-1)*Every {
		return false
	}
	k.free = k.free.Add(Every)
	return true
}

// Report writes, of each kind that may be written again, how many lines were left out. Who
// calls it now and then has them told when no line of the kind follows.
func (h *Handler) Report(now time.Time) {
	for _, r := range h.all.due(now) {
		_ = r.out.next.Handle(context.Background(), r.Record) // as slog does
	}
}

// report is a line about lines.
type report struct {
	out *Handler
	slog.Record
}

func (all *kinds) due(now time.Time) (reports []report) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, k := range all.byName {
		if k.left == 0 || !k.take(now) {
			continue
		}
		r := slog.NewRecord(now, k.level, "lines of this kind were left out", 0)
		r.AddAttrs(k.about...)
		r.AddAttrs(slog.Int("left_out", k.left))
		reports = append(reports, report{k.out, r})
		k.left, k.about = 0, nil
	}
	return reports
}

// WithAttrs has all lines carry attributes. Those that tell kinds apart do so.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *h
	own.next = h.next.WithAttrs(attrs)
	var b strings.Builder
	for _, a := range attrs {
		if !h.group && slices.Contains(h.apart, a.Key) {
			writeAttr(&b, a)
		}
	}
	own.fixed += b.String()
	return &own
}

// WithGroup has all further attributes be in a group.
func (h *Handler) WithGroup(name string) slog.Handler {
	own := *h
	own.next, own.group = h.next.WithGroup(name), own.group || name != ""
	return &own
}
