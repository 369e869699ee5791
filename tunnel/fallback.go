package tunnel

import "github.com/longhaul-project/longhaul/tunnel/frame"

// Each end knows only of itself what it uses in place of what it should: the one that dials
// finds out that QUIC is blocked, and the quic-go of either may be another than ccslot knows.
// A move suffers from it whichever end it is, so each tells the other, for operators there.

// composeFallback appends what we use in place of what we should, if that is news for the
// peer. The caller holds mu.
func (l *Link) composeFallback(b []byte) []byte {
	var now frame.Fallback
	if l.set.via == QUIC {
		if why := l.whyStock(); why != nil {
			now.Controller = nameStock + ": " + why.Error()
		}
	} else if l.choose.blocked != nil {
		now.Carrier, _ = describe(l.choose.blocked)
	}
	if now == l.set.told {
		return b
	}
	l.set.told = now
	return now.Append(b)
}
