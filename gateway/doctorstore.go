package gateway

import (
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/store"
)

// ExamineStore looks at the disk of the content stores, and for what is left on it.
func (g *Gateway) ExamineStore() (checks []Check) {
	if g.cfg.StoreDir == "" {
		return nil
	}
	if free, keep, err := store.Room(g.cfg.StoreDir); err == nil { // else a system that does not tell
		checks = append(checks, examineRoom(g.cfg.StoreDir, free, keep))
	}
	left, err := g.leftStores()
	for _, l := range left {
		of := l.Site
		if l.Tenant != "" {
			of += " for " + l.Tenant
		}
		checks = append(checks, Check{Name: "left store", Subject: of, State: CheckWarn, Detail: fmt.Sprintf(
			"%s has %d MiB of a site that is not in the config and has not dialed in since the start, or of a tenant that is not in it; if it does not come back, remove it", l.Dir, l.Disk>>20)})
	}
	if err != nil {
		checks = append(checks, Check{Name: "left store", State: CheckWarn, Detail: err.Error()})
	}
	return checks
}

// aSegment is about what a store writes at a time, in bytes.
const aSegment = 1 << 20

// examineRoom says what it means that free bytes are left on the disk of the stores, of
// which keep stay free.
func examineRoom(dir string, free, keep int64) Check {
	c := Check{Name: "store", Subject: dir, State: CheckOK, Detail: fmt.Sprintf("its disk has %d MiB left", free>>20)}
	if free-aSegment < keep {
		c.State = CheckWarn
		c.Detail = fmt.Sprintf("its disk has %d MiB left, and %d MiB of it stay free for others: nothing more is kept, so that it crosses again; make room, or lower store.disk", free>>20, keep>>20)
	}
	return c
}
