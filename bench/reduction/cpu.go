package reduction

import (
	"runtime"
	"syscall"
	"time"
)

// processor is the time that this process has used a processor.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("reduction: getrusage: " + err.Error()) // it only fails for wrong arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spent is the processor time of f. What was left behind before it is
// collected first.
func spent(f func() error) (time.Duration, error) {
	runtime.GC()
	start := processor()
	err := f()
	return processor() - start, err
}
