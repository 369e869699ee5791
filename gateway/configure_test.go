package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// wishNoter is a Host that notes which segments were wished, each time.
type wishNoter struct {
	l2ext.Host
	mu  sync.Mutex
	all []string
}

func (h *wishNoter) Apply(ctx context.Context, wishes []l2ext.Wish) ([]l2ext.Attached, error) {
	var names []string
	for _, w := range wishes {
		names = append(names, w.Name)
	}
	h.mu.Lock()
	h.all = append(h.all, fmt.Sprint(names))
	h.mu.Unlock()
	return h.Host.Apply(ctx, wishes)
}

func (h *wishNoter) seen() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(slices.Compact(slices.Clone(h.all)), " ")
}

// TestConfigureAtOnce starts a gateway whose config is slow to come. Its host hears of no wish
// without a segment of it, and of none that lacks some: what the kernel carries of them since an
// earlier gateway would go.
func TestConfigureAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &wishNoter{Host: l2exttest.NewHost()}
		l, err := NewLayer2(Layer2Config{Site: "a", Host: h})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer wg.Wait()
		defer cancel()
		time.Sleep(time.Minute)
		if got := h.seen(); got != "" {
			t.Errorf("without a wish the host was told %s", got)
		}
		errs := l.Configure(ctx, []Segment{
			{Name: "one", VNI: 1, Bridge: "br1"}, {Name: "again", VNI: 1, Bridge: "br2"}, {Name: "direct", VNI: 2, Bridge: "br2", Mode: "direct"},
			{Name: "two", VNI: 3, Bridge: "br3", Policy: SegmentPolicy{Home: "a"}}, {Name: "shared", VNI: 4, Bridge: "br3"},
		})
		for i, want := range []error{nil, ErrExists, ErrInvalid, nil, ErrInvalid} {
			if !errors.Is(errs[i], want) {
				t.Errorf("segment %d: %v, want %v", i, errs[i], want)
			}
		}
		time.Sleep(time.Minute)
		if got, want := h.seen(), "[one two]"; got != want {
			t.Errorf("the host was told %s, want %s", got, want)
		}
		if v, err := l.AddSegment(ctx, Segment{Name: "three", VNI: 5, Bridge: "br4"}); err != nil {
			t.Errorf("%+v: %v", v, err)
		}
		if got, want := h.seen(), "[one two] [one two three]"; got != want {
			t.Errorf("with one more the host was told %s, want %s", got, want)
		}
		for _, v := range l.m.Segments() {
			if s, err := l.Segment(ctx, v.Name); err != nil || (s.Policy.Home == "a") != (v.Name == "two") {
				t.Errorf("%+v: %v", s, err)
			}
		}
	})
}
