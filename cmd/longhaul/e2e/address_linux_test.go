package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
)

// TestAddressChange gives site a another address on the WAN in the middle of a transfer, as
// when its provider does: the gateway of site b, whose config has the old one, is reached from
// the new one within seconds, and every byte comes, in order.
func TestAddressChange(t *testing.T) {
	t.Parallel()
	const (
		size   = 16 << 20
		within = 10 * time.Second // the link is dialed anew at the latest, on a busy machine
		then   = "198.51.100.3"
	)
	b := newForwardBed(t, bedOptions{link: lab.Link{Rate: 20e6, RTT: 40 * time.Millisecond}, noGuest: true})
	listen(t, b.lab.B, serviceIn, func(c net.Conn) { io.Copy(c, c) })
	c := dial(t, b.lab.A, serviceOut)
	sent := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(sent)
	wrote := make(chan error, 1) // the end of the writer
	go func() {
		_, err := c.Write(sent)
		wrote <- errors.Join(err, c.CloseWrite())
	}()
	var got bytes.Buffer
	var gap time.Duration
	for last, buf, changed := time.Now(), make([]byte, 64<<10), false; ; {
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if changed {
			gap = max(gap, time.Since(last))
		}
		if last = time.Now(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("after %d of %d bytes: %v", got.Len(), size, err)
		}
		if !changed && got.Len() > size/4 {
			changed = true
			b.readdress(t, b.lab.A, then)
		}
	}
	if err := <-wrote; err != nil || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d of %d bytes came back, %v", got.Len(), size, err)
	}
	t.Logf("nothing came for %v", gap)
	if gap > within {
		t.Errorf("nothing came for %v", gap)
	}
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	poll(t, ctx, func() error {
		st, err := b.pair.API(b.lab.B).Status(ctx)
		if err == nil && (len(st.Peers) != 1 || !strings.HasPrefix(st.Peers[0].Address, then+":")) {
			err = fmt.Errorf("site b says %+v; want its peer at %s", st.Peers, then)
		}
		return err
	})
}

// readdress gives a site another address on the WAN in place of the one that it has.
func (b *bed) readdress(t *testing.T, s *lab.Site, to string) {
	t.Helper()
	for _, args := range [][2]string{{"del", s.WAN.String()}, {"add", to}} {
		argv := []string{"ip", "addr", args[0], args[1] + "/24", "dev", lab.WANDevice}
		if out, err := s.Command(t.Context(), argv...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
}
