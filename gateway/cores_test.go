package gateway

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// TestIdleOfProcess keeps all processors busy that this process may use: it has no
// more, however many the machine has besides.
func TestIdleOfProcess(t *testing.T) {
	c := new(cores)
	if c.load(time.Now()); !c.looked {
		nstest.Skip(t, "this system does not tell what is idle")
	}
	end := time.Now().Add(5 * lookEvery)
	var spinning sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		spinning.Go(func() {
			for time.Now().Before(end) {
			}
		})
	}
	for time.Now().Before(end.Add(-lookEvery / 2)) {
		time.Sleep(lookEvery)
		c.load(time.Now())
	}
	idle := c.load(time.Now()).idle
	spinning.Wait()
	if most := 0.4 * float64(runtime.GOMAXPROCS(0)); idle < 0 || idle > most {
		t.Errorf("%.2f of %d cores are idle", idle, runtime.GOMAXPROCS(0))
	}
}
