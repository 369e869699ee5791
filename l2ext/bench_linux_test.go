package l2ext_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// BenchmarkSegment sends TCP from a host of one site to a host of the other,
// through both kernels and both gateways, with a line that costs nothing.
func BenchmarkSegment(b *testing.B) {
	l := newLab(b, l2exttest.Line{Datagram: 1415})
	var c net.Conn
	var listener net.Listener
	check(b, l.sites["b"].host.Do(func() (err error) { listener, err = net.Listen("tcp", "10.77.0.2:8"); return err }))
	defer listener.Close()
	read := make(chan int64, 1) // one answer
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, c)
		read <- n
	}()
	check(b, l.sites["a"].host.Do(func() (err error) { c, err = net.DialTimeout("tcp", "10.77.0.2:8", time.Minute); return err }))
	block := make([]byte, 64<<10)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := c.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	<-read
	b.StopTimer()
	b.ReportMetric(float64(l.sites["a"].count(0)), "frames")
}
