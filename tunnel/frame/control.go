package frame

import "encoding/binary"

// Type tells control frames apart.
type Type uint8

// The types of control frame; see the package comment for their bodies.
const (
	TypeHello Type = iota + 1
	TypeCommit
	TypeRefuse
	TypeOpen
	TypeAck
	TypeFin
	TypeReset
	TypeResetAck
	TypeGone
	TypeResume
	TypeResumeEnd
	TypePing
	TypePong
	TypeGrow
	TypeFallback
	TypeAdvance
)

// HeadLen is the length of a control frame's type and length.
const HeadLen = 4

// ID is a random 128-bit name: of a process's life, or of a set of connections.
type ID [16]byte

// Role is what a connection is for.
type Role uint8

// The roles of a connection.
const (
	Priority  Role = iota + 1 // control frames, urgent channels, raw connections
	Datagrams                 // datagrams
	Bulk                      // chunks of bulk channels
)

// Flow classes of one direction of a channel.
const (
	ClassUrgent = 1
	ClassBulk   = 2
)

// FlagFin in an Ack or Resume: the Fin has arrived.
const FlagFin = 1

// Frame is a control frame.
type Frame interface {
	// Append appends the whole encoding, with type and length, to b.
	Append(b []byte) []byte
}

// Hello is the first frame of each side on each connection.
type Hello struct {
	Role    Role
	Epoch   ID // of the sender's process
	Set     ID // the set of connections that this one begins or joins
	Held    ID // the set that the sender uses now; zero for none, and Set if that takes the place of one that is well
	Site    string
	Gateway string
	Version string // of the sender's software, for people
	Path    string // name of the way over the WAN; empty if there is but one. The answer has the dialer's
}

// Commit ends the handshake of a connection: it is now in use. On a Priority
// connection it comes from the site that decides, and a higher Serial replaces
// a lower one.
type Commit struct {
	Set    ID
	Serial uint64
}

// Refuse ends the handshake of a connection: it will not be used.
type Refuse struct {
	Code   uint8
	Reason string
}

// The codes of a Refuse.
const (
	RefuseBusy  = 1 // another set is in use; wait
	RefuseStale = 2 // the set to join is not in use
	RefuseOther = 3 // see the reason
	// RefuseCarrier: the config at this end wants another carrier than this.
	RefuseCarrier = 4
)

// Open makes a channel.
type Open struct {
	Channel       uint64
	Kind          uint16
	Forward, Back uint8 // class of opener to acceptor, and of the way back
	Header        []byte
}

// Ack tells the sender of messages what has become of them.
type Ack struct {
	Channel        uint64
	Flags          uint8
	Received, Done uint64
	Window         uint64
}

// Fin says that Last is the seq of the last message; 0 when there was none.
type Fin struct{ Channel, Last uint64 }

// Reset ends a channel in both directions at once.
type Reset struct {
	Channel uint64
	Reason  string
}

// ResetAck answers a Reset.
type ResetAck struct{ Channel uint64 }

// Gone answers a frame about a channel that has ended in good order.
type Gone struct{ Channel uint64 }

// Range is of seqs, both ends included.
type Range struct{ First, Last uint64 }

// Resume is an Ack with all that has arrived out of order.
type Resume struct {
	Ack
	Ranges []Range
}

// ResumeEnd says that all channels have been resumed, on the set with Serial.
type ResumeEnd struct{ Serial uint64 }

// Ping asks for a Pong. Pad bytes of padding make it fill whole packets, so
// that it finds out whether such packets still pass.
type Ping struct {
	Nonce uint64
	Pad   int
}

// Pong answers a Ping.
type Pong struct{ Nonce uint64 }

// Grow asks the end that dials for Conns bulk connections: what the other end
// sends needs them. More than the dialer is ready for counts as what it is.
type Grow struct{ Conns uint8 }

// Advance is how many bytes the channels that its receiver opens may send in all before
// they have been acknowledged, beyond what each may.
type Advance struct{ Bytes uint64 }

// Fallback says what the sender uses in place of what it should, and why, for people at the
// other end. What is empty is as it should be.
type Fallback struct {
	Controller string // what controls congestion in place of the path's model, and why
	Carrier    string // why TCP is the carrier in place of QUIC
}

// Unknown is a frame of a type that this version does not know.
type Unknown struct {
	Type Type
	Body []byte
}

var be = binary.BigEndian

// head appends a head whose length end fills in; it returns where the body begins.
func head(b []byte, t Type) ([]byte, int) {
	b = append(b, byte(t), 0, 0, 0)
	return b, len(b)
}

func end(b []byte, body int) []byte {
	n := len(b) - body
	b[body-3], b[body-2], b[body-1] = byte(n>>16), byte(n>>8), byte(n)
	return b
}

func appendStr(b []byte, s string) []byte {
	s = s[:min(len(s), MaxText)]
	return append(be.AppendUint16(b, uint16(len(s))), s...)
}

func appendNumbers(b []byte, t Type, ns ...uint64) []byte {
	b, at := head(b, t)
	for _, n := range ns {
		b = be.AppendUint64(b, n)
	}
	return end(b, at)
}

// Append implements Frame.
func (f Hello) Append(b []byte) []byte {
	b, at := head(b, TypeHello)
	b = append(b, byte(f.Role))
	b = append(b, f.Epoch[:]...)
	b = append(b, f.Set[:]...)
	b = append(b, f.Held[:]...)
	for _, s := range []string{f.Site, f.Gateway, f.Version, f.Path} {
		b = appendStr(b, s)
	}
	return end(b, at)
}

// Append implements Frame.
func (f Commit) Append(b []byte) []byte {
	b, at := head(b, TypeCommit)
	return end(be.AppendUint64(append(b, f.Set[:]...), f.Serial), at)
}

// Append implements Frame.
func (f Refuse) Append(b []byte) []byte {
	b, at := head(b, TypeRefuse)
	return end(appendStr(append(b, f.Code), f.Reason), at)
}

// Append implements Frame. The header may not be longer than MaxHeader.
func (f Open) Append(b []byte) []byte {
	b, at := head(b, TypeOpen)
	b = be.AppendUint64(b, f.Channel)
	b = be.AppendUint16(b, f.Kind)
	b = append(b, f.Forward, f.Back)
	return end(append(b, f.Header...), at)
}

func (f Ack) appendBody(b []byte) []byte {
	b = append(be.AppendUint64(b, f.Channel), f.Flags)
	return be.AppendUint64(be.AppendUint64(be.AppendUint64(b, f.Received), f.Done), f.Window)
}

// Append implements Frame.
func (f Ack) Append(b []byte) []byte {
	b, at := head(b, TypeAck)
	return end(f.appendBody(b), at)
}

// Append implements Frame. Ranges beyond MaxRanges are left out.
func (f Resume) Append(b []byte) []byte {
	b, at := head(b, TypeResume)
	b = f.appendBody(b)
	rs := f.Ranges[:min(len(f.Ranges), MaxRanges)]
	b = be.AppendUint16(b, uint16(len(rs)))
	for _, r := range rs {
		b = be.AppendUint64(be.AppendUint64(b, r.First), r.Last)
	}
	return end(b, at)
}

// Append implements Frame.
func (f Reset) Append(b []byte) []byte {
	b, at := head(b, TypeReset)
	return end(appendStr(be.AppendUint64(b, f.Channel), f.Reason), at)
}

// Append implements Frame.
func (f Fin) Append(b []byte) []byte { return appendNumbers(b, TypeFin, f.Channel, f.Last) }

// Append implements Frame.
func (f ResetAck) Append(b []byte) []byte { return appendNumbers(b, TypeResetAck, f.Channel) }

// Append implements Frame.
func (f Gone) Append(b []byte) []byte { return appendNumbers(b, TypeGone, f.Channel) }

// Append implements Frame.
func (f ResumeEnd) Append(b []byte) []byte { return appendNumbers(b, TypeResumeEnd, f.Serial) }

// Append implements Frame.
func (f Pong) Append(b []byte) []byte { return appendNumbers(b, TypePong, f.Nonce) }

// Append implements Frame.
func (f Fallback) Append(b []byte) []byte {
	b, at := head(b, TypeFallback)
	return end(appendStr(appendStr(b, f.Controller), f.Carrier), at)
}

// Append implements Frame.
func (f Advance) Append(b []byte) []byte { return appendNumbers(b, TypeAdvance, f.Bytes) }

// Append implements Frame.
func (f Grow) Append(b []byte) []byte {
	b, at := head(b, TypeGrow)
	return end(append(b, f.Conns), at)
}

// Append implements Frame.
func (f Ping) Append(b []byte) []byte {
	b, at := head(b, TypePing)
	b = be.AppendUint64(b, f.Nonce)
	return end(append(b, make([]byte, f.Pad)...), at)
}

// Append implements Frame.
func (f Unknown) Append(b []byte) []byte {
	b, at := head(b, f.Type)
	return end(append(b, f.Body...), at)
}
