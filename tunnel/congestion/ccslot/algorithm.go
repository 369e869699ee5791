package ccslot

import (
	"time"

	"github.com/quic-go/quic-go/internal/congestion"
	"github.com/quic-go/quic-go/internal/monotime"
	"github.com/quic-go/quic-go/internal/protocol"
)

// A Controller decides what one connection may send. Its methods are called on
// the connection's run loop, one at a time, and must not block. Times are since
// a fixed point, the same for all connections of the process; they may be
// negative, and 0 means nothing. Sizes are bytes of QUIC packets, without IP
// and UDP.
type Controller interface {
	// CanSend tells whether the window leaves room for a packet, with inFlight
	// bytes sent and neither acknowledged nor lost.
	CanSend(inFlight int64) bool
	// HasBudget tells whether the pacer lets a packet leave now.
	HasBudget(now time.Duration) bool
	// NextSend is when to ask again after a HasBudget that said no.
	NextSend() time.Duration
	// Sent notes a packet; inFlight counts it already. Packets that elicit no
	// acknowledgement are neither acknowledged nor lost later.
	Sent(now time.Duration, packet int64, size, inFlight int64, elicits bool)
	// Acked notes the acknowledgement of a packet, which may have been sent
	// before the controller was there.
	Acked(now time.Duration, packet int64, size int64)
	// Lost notes a packet found lost. Size 0: the path has marked packets as
	// having met congestion (ECN), none is lost.
	Lost(packet int64, size int64)
	// Spurious: a packet that was found lost has arrived after all.
	Spurious(packet int64)
	// SetPacketSize says how large packets may be.
	SetPacketSize(bytes int64)
	// Migrated: the connection goes over another path from now on; nothing is
	// in flight there.
	Migrated()
	// Window is the congestion window in bytes, for traces.
	Window() int64
}

// algorithm is a Controller as quic-go knows it.
type algorithm struct{ c Controller }

var _ congestion.SendAlgorithmWithDebugInfos = (*algorithm)(nil)

func (a *algorithm) CanSend(inFlight protocol.ByteCount) bool { return a.c.CanSend(int64(inFlight)) }

func (a *algorithm) HasPacingBudget(now monotime.Time) bool {
	return a.c.HasBudget(time.Duration(now))
}

func (a *algorithm) TimeUntilSend(protocol.ByteCount) monotime.Time {
	return monotime.Time(a.c.NextSend())
}

func (a *algorithm) OnPacketSent(now monotime.Time, inFlight protocol.ByteCount, pn protocol.PacketNumber, size protocol.ByteCount, elicits bool) {
	a.c.Sent(time.Duration(now), int64(pn), int64(size), int64(inFlight), elicits)
}

func (a *algorithm) OnPacketAcked(pn protocol.PacketNumber, size, _ protocol.ByteCount, now monotime.Time) {
	a.c.Acked(time.Duration(now), int64(pn), int64(size))
}

func (a *algorithm) OnCongestionEvent(pn protocol.PacketNumber, size, _ protocol.ByteCount) {
	a.c.Lost(int64(pn), int64(size))
}

func (a *algorithm) OnSpuriousLoss(pn protocol.PacketNumber) { a.c.Spurious(int64(pn)) }

func (a *algorithm) SetMaxDatagramSize(size protocol.ByteCount) { a.c.SetPacketSize(int64(size)) }

// What follows is of no use to a model of the path: it has its own start-up,
// and quic-go v0.65.0 calls OnRetransmissionTimeout nowhere.

func (a *algorithm) MaybeExitSlowStart()                     {}
func (a *algorithm) OnRetransmissionTimeout(bool)            {}
func (a *algorithm) InSlowStart() bool                       { return false }
func (a *algorithm) InRecovery() bool                        { return false }
func (a *algorithm) GetCongestionWindow() protocol.ByteCount { return protocol.ByteCount(a.c.Window()) }

// probe is the controller of Check.
type probe struct{ asked int }

func (p *probe) CanSend(int64) bool                            { p.asked++; return true }
func (p *probe) HasBudget(time.Duration) bool                  { p.asked++; return true }
func (p *probe) NextSend() time.Duration                       { return 0 }
func (p *probe) Sent(time.Duration, int64, int64, int64, bool) {}
func (p *probe) Acked(time.Duration, int64, int64)             {}
func (p *probe) Lost(int64, int64)                             {}
func (p *probe) Spurious(int64)                                {}
func (p *probe) SetPacketSize(int64)                           {}
func (p *probe) Migrated()                                     {}
func (p *probe) Window() int64                                 { return 0 }
