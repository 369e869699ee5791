package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// TestSegmentTools asks two real gateways what an operator asks of a segment:
// whether full frames pass, what passes now, and whether it can end.
func TestSegmentTools(t *testing.T) {
	b := newBed(t, bedOptions{link: lab.Link{Rate: 200e6, RTT: 20 * time.Millisecond}, noGuest: true})
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	api := b.pair.API(b.lab.A)
	poll(t, ctx, func() error {
		c, err := api.Doctor(ctx)
		if err != nil {
			return err
		}
		found := make(map[string]gateway.CheckState)
		for _, k := range c.Checks {
			found[strings.TrimSpace(k.Name+" "+k.Subject)] = k.State
		}
		for _, name := range []string{"kernel", "mtu lan to b", "link b", "clock b", "segment lan", "loops lan"} {
			if found[name] != gateway.CheckOK {
				return fmt.Errorf("the doctor finds %q of %s, in %+v", found[name], name, c.Checks)
			}
		}
		return nil
	})
	var file bytes.Buffer
	captured, cancelDoctor := context.WithCancel(ctx)
	var doctor sync.WaitGroup
	doctor.Go(func() { // its echoes are what passes
		for captured.Err() == nil {
			_, _ = b.pair.API(b.lab.B).Doctor(captured)
		}
	})
	if err := api.CaptureSegment(ctx, "lan", gateway.CaptureRequest{Frames: 3, Snap: 64}, &file); err != nil {
		t.Error(err)
	}
	cancelDoctor()
	doctor.Wait()
	if n := file.Len(); n < 24+3*(16+14) || n > 24+3*(16+64) || !bytes.HasPrefix(file.Bytes(), []byte{0xa1, 0xb2, 0x3c, 0x4d}) {
		t.Errorf("the capture has %d bytes: % x", n, file.Bytes()[:min(n, 24)])
	}
	poll(t, ctx, func() error {
		got, err := api.UnstretchSegment(ctx, "lan", gateway.UnstretchRequest{})
		if err == nil && !got.Cut {
			err = fmt.Errorf("the segment stays for %+v, and what is at %v", got.Dependents, got.Unheard)
		}
		return err
	})
	if all, err := api.Segments(ctx); err != nil || len(all) != 0 {
		t.Errorf("after its end: %+v, %v", all, err)
	}
}
