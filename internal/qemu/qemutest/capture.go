package qemutest

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"
)

// Config is the guest and the migration to capture. The zero value is a guest
// that halts after boot and a plain migration.
type Config struct {
	Memory  int      // MiB of guest memory, 0 means 64; the guest gets 8 KiB more
	Dirty   int      // MiB that the guest writes to, from 1 MiB up, without end
	Machine string   // machine type, empty means "q35"
	Args    []string // further arguments for all QEMUs

	Passes    int   // passes over memory before the guest is let go, 0 means 3 if the guest is dirty
	Bandwidth int64 // bytes per second until then, 0 means that a pass takes about a quarter of a second

	XBZRLE      bool   // send changed pages as QEMU's own deltas
	Compress    bool   // capability compress, of QEMU up to 9.0
	Multifd     int    // multifd channels
	Compression string // of multifd: "zlib" or "zstd"; empty means none
	Postcopy    bool   // switch to postcopy after Passes
	Preempt     bool   // with Postcopy: a channel for urgent pages
	Recover     bool   // with Postcopy: break the connections once, and recover
}

func (c Config) withDefaults() Config {
	c.Memory = cmp.Or(c.Memory, 64)
	c.Machine = cmp.Or(c.Machine, "q35")
	c.Bandwidth = cmp.Or(c.Bandwidth, int64(c.Dirty)<<22, 64<<20)
	if c.Dirty > 0 {
		c.Passes = cmp.Or(c.Passes, 3)
	}
	return c
}

// Capture is a migration that has completed.
type Capture struct {
	Config   Config    // of the attempt that worked, with its defaults filled in
	Channels []Channel // in the order in which the source connected

	// As the source's query-migrate counts at the end.
	Pages     uint64 // sent as they are
	ZeroPages uint64
	Deltas    uint64 // sent by XBZRLE
	Passes    int    // dirty-sync-count
}

// Channel is one connection of a migration.
type Channel struct {
	Forward []byte // source to destination
	Back    []byte // destination to source
}

// File captures a migration into a file: one channel, no return path, no
// destination.
func File(tb testing.TB, c Config) *Capture {
	tb.Helper()
	return slower(tb, c, file)
}

// slower captures with ever less bandwidth until the migration makes its
// passes: it converges early when the guest gets too little of the CPU.
func slower(tb testing.TB, c Config, capture func(testing.TB, Config) *Capture) *Capture {
	tb.Helper()
	Need(tb)
	c = c.withDefaults()
	for range 8 {
		if got := capture(tb, c); got != nil {
			got.Config = c
			return got
		}
		c.Bandwidth /= 2
	}
	tb.Fatalf("the guest does not keep a migration busy for %d passes", c.Passes)
	return nil
}

// file makes one attempt at File. It returns nil if the migration ends before
// it has made its passes.
func file(tb testing.TB, c Config) *Capture {
	tb.Helper()
	dir := tempDir(tb)
	path := filepath.Join(dir, "stream")
	src := start(tb, dir, "source", c, false)
	src.configure(c, map[string]bool{"events": true, "xbzrle": c.XBZRLE, "compress": c.Compress})
	src.do("migrate", map[string]any{"uri": "exec:cat > " + path})
	if c.Passes > 0 && !src.waitPass(c.Passes) {
		src.quit()
		return nil
	}
	src.letGo()
	src.waitStatus("completed")
	got := src.stats()
	src.quit()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	got.Channels = []Channel{{Forward: b}}
	return got
}

// tempDir is a directory with a name short enough for sockets in it.
func tempDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "qt")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// configure sets capabilities and parameters, such that a migration iterates
// until letGo.
func (v *vm) configure(c Config, caps map[string]bool) {
	v.tb.Helper()
	type capability struct {
		Name  string `json:"capability"`
		State bool   `json:"state"`
	}
	var list []capability
	for name, on := range caps {
		if on {
			list = append(list, capability{name, true})
		}
	}
	v.do("migrate-set-capabilities", map[string]any{"capabilities": list})
	params := map[string]any{"max-bandwidth": c.Bandwidth, "downtime-limit": 1}
	if c.Multifd > 0 {
		params["multifd-channels"] = c.Multifd
		params["multifd-compression"] = cmp.Or(c.Compression, "none")
	}
	if c.Recover {
		params["max-postcopy-bandwidth"] = c.Bandwidth
	}
	v.do("migrate-set-parameters", params)
}

// letGo lets a migration that iterates finish.
func (v *vm) letGo() {
	v.tb.Helper()
	v.do("migrate-set-parameters", map[string]any{
		"max-bandwidth": int64(16) << 30, "max-postcopy-bandwidth": 0, "downtime-limit": 60_000,
	})
}

// stats asks the source for its counts.
func (v *vm) stats() *Capture {
	v.tb.Helper()
	var q struct {
		RAM struct {
			Normal    uint64
			Duplicate uint64
			Passes    int `json:"dirty-sync-count"`
		}
		XBZRLE struct{ Pages uint64 } `json:"xbzrle-cache"`
	}
	v.do("query-migrate", nil, &q)
	return &Capture{Pages: q.RAM.Normal, ZeroPages: q.RAM.Duplicate, Deltas: q.XBZRLE.Pages, Passes: q.RAM.Passes}
}
