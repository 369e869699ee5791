package congestion

import "testing"

// TestLarge: of large packets those count that have left since one as large was acknowledged.
func TestLarge(t *testing.T) {
	var l large
	for i, x := range []struct {
		sent, acked, lost, want int64
	}{
		{sent: 1200, want: 0}, {sent: 1300, want: 1}, {acked: 1200, want: 1}, {sent: 1310, want: 2},
		{sent: 1452, want: 1}, {acked: 1300, want: 1}, {sent: 1350, want: 1}, {sent: 1440, want: 2}, {acked: 1440, want: 0},
		{sent: 1300, want: 1}, {acked: 1452, want: 0},
		{sent: 1452, want: 1}, {lost: 1400, want: 1}, {acked: 1300, want: 1}, {lost: 1400, want: 1}, {lost: 1200, want: 1}, {lost: 1300, want: 1}, {lost: 1300, want: 0},
	} {
		epoch := l.epoch
		switch {
		case x.sent > 0:
			l.sent(x.sent)
		case x.lost > 0:
			l.lost(x.lost)
		default:
			l.acked(x.acked)
		}
		if l.left != x.want || l.epoch != epoch && x.want > 0 {
			t.Errorf("step %d: %+v, want %d", i, l, x.want)
		}
	}
}

// TestUnheard: what is larger than the packets of a connection looks for the MTU, and does not
// count until such are its packets; nor does what a connection that is no more has sent.
func TestUnheard(t *testing.T) {
	p := New(0)
	m := NewMember()
	m.Join(p, Bulk, 1400, 42)
	left := func(want int64) (epoch int64) {
		t.Helper()
		n, epoch := p.Unheard()
		if n != want {
			t.Errorf("%d packets, want %d", n, want)
		}
		return epoch
	}
	for i := range int64(5) {
		m.Sent(0, i+1, 1400, 1400, true)
	}
	m.Sent(0, 6, 1426, 1426, true)
	m.Sent(0, 7, 1400, 1400, false)
	before := left(5)
	m.Acked(0, 1, 1400)
	if left(0) == before {
		t.Error("it is the same epoch")
	}
	m.Sent(0, 8, 1400, 1400, true)
	m.SetPacketSize(1426)
	m.Sent(0, 9, 1426, 1426, true)
	before = left(2)
	m.Leave()
	if left(0) == before {
		t.Error("it is the same epoch")
	}
}
