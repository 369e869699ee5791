package gateway

import "time"

// readCredit is how much time a reader that was kept by something else may catch up: a span of
// 1 MiB at the rates of a disk, so that what reading and comparing take is no loss.
const readCredit = 100 * time.Millisecond

// readPace bounds what is read of a disk. The zero value does not.
type readPace struct {
	rate int64     // bits per second; 0 for no bound
	free time.Time // when what was read until now is paid for
}

// pause is how long to wait after n bytes more have been read.
func (p *readPace) pause(now time.Time, n int64) time.Duration {
	if p.rate <= 0 || n <= 0 {
		return 0
	}
	if earliest := now.Add(-readCredit); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(time.Duration(float64(n) * 8 / float64(p.rate) * float64(time.Second)))
	return max(p.free.Sub(now), 0)
}
