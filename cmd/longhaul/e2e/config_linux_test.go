package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
)

// TestConfigOfAFounder: the config of the site that others dial names none of
// them, as "longhaul init" leaves it. Its segments and forwards find them all
// the same, and a segment that names no sites carries the VMs of all.
func TestConfigOfAFounder(t *testing.T) {
	b := newBed(t, bedOptions{link: lab.Link{Rate: 200e6, RTT: 10 * time.Millisecond}, noGuest: true, noPair: true})
	b.startPair(t, bedOptions{extra: func(s *lab.Site) string {
		if s == b.lab.B {
			return ""
		}
		return "forwards:\n  - {name: early, listen: 'tcp:127.0.0.1:8123', to: b, target: 'tcp:127.0.0.1:8123'}\n"
	}})
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	for i, s := range b.sites() {
		if err := b.pair.Process(s).Stop(ctx); err != nil {
			t.Fatal(err)
		}
		conf := b.pair.Config(s)
		if s == b.lab.A {
			conf = without(t, conf, fmt.Sprintf("peers:\n  - site: b\n    address: [\"%s:%d\"]\n", b.lab.B.WAN, pair.LinkPort))
		}
		conf = without(t, conf, fmt.Sprintf("    sites: [%s]\n", b.sites()[1-i].Name))
		p, err := s.StartGateway(ctx, os.Getenv(binaryMark), conf)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Stop(ctx)
	}
	for i, s := range b.sites() {
		poll(t, ctx, func() error {
			seg, err := b.pair.API(s).Segment(ctx, "lan")
			if err == nil && !slices.Equal(seg.Sites, []string{b.sites()[1-i].Name}) {
				err = fmt.Errorf("the segment of site %s spans %v", s.Name, seg.Sites)
			}
			return err
		})
	}
	poll(t, ctx, func() error {
		all, err := b.pair.API(b.lab.A).Forwards(ctx)
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("forwards %+v", all)
		}
		return err
	})
}

func without(t *testing.T, text []byte, part string) []byte {
	t.Helper()
	before, after, ok := bytes.Cut(text, []byte(part))
	if !ok {
		t.Fatalf("%q is not in\n%s", part, text)
	}
	return slices.Concat(before, after)
}
