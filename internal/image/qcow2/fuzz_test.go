package qcow2

import (
	"runtime"
	"testing"
)

// FuzzRead reads whatever comes as an image. Nothing may panic, extents must
// go forwards and memory must not depend on what the image claims.
func FuzzRead(f *testing.F) {
	for _, file := range seeds(f) {
		if len(file) < 1<<20 {
			f.Add(file)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readAll(file, 1<<20)
		runtime.ReadMemStats(&after)
		// At most: the disk as readAll grows it, two tables, the unpacker's 6 MiB
		// and the decompressors'.
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("allocated %d bytes, error %v", n, err)
		}
	})
}
