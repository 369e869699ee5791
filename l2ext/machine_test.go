package l2ext_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestMachine makes the bridge of a segment at two sites, and at one of them again after a restart:
// its MAC is the same there, and no other site's, nor a gateway's.
func TestMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := func(site string, vni uint32) l2ext.MAC {
			m, err := l2ext.New(l2ext.Config{Site: site, Host: l2exttest.NewHost(), Carrier: l2exttest.NewWire(l2exttest.Line{}).End(site)})
			check(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { check(t, m.Run(ctx)) })
			check(t, m.Apply(ctx, []l2ext.Segment{{Name: "prod", VNI: vni, Bridge: "br-prod"}}))
			v := m.Segments()[0]
			cancel()
			wg.Wait()
			return v.Machines[0]
		}
		a := machine("a", 100)
		if again := machine("a", 100); again != a {
			t.Errorf("after a restart it is %v, was %v", again, a)
		}
		if b, other := machine("b", 100), machine("a", 101); b == a || other == a || b == other {
			t.Errorf("it is %v at b, %v of another segment, %v at a", b, other, a)
		}
		if !a.Host() || a[0] != 0x0a || a[1] == 0x4c {
			t.Errorf("it is %v", a)
		}
	})
}
