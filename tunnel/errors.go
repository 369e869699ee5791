package tunnel

import "errors"

var (
	// ErrPeerGone: there was no link to the peer for longer than Patience, or
	// the peer has been removed. What was sent and not acknowledged may or may
	// not have arrived.
	ErrPeerGone = errors.New("tunnel: peer gone")
	// ErrPeerRestarted: the peer's process is a new one and knows nothing of
	// the channel.
	ErrPeerRestarted = errors.New("tunnel: peer restarted")
	// ErrClosed: Run has returned, or CloseSend was called before.
	ErrClosed = errors.New("tunnel: closed")
	// ErrTooLarge: a message, header or datagram exceeds its limit.
	ErrTooLarge = errors.New("tunnel: too large")
	// ErrDown: the link is not up. Only raw connections and datagrams say so;
	// channels wait.
	ErrDown = errors.New("tunnel: link is down")
	// ErrTooMany: the limit of channels or of raw connections is reached.
	ErrTooMany = errors.New("tunnel: too many channels")
)

var (
	// errAsked: Config.NewReno.
	errAsked = errors.New("as configured")
	// errNotAsked: quic-go took our controller and does not ask it.
	errNotAsked = errors.New("quic-go does not ask the controller that it was given")
)

// errProtocol: the peer broke a rule of the protocol. It closes the link.
var errProtocol = errors.New("protocol error")

// An AbortError ends a channel that one side aborted.
type AbortError struct {
	Reason string
	Local  bool // we aborted it
}

func (e *AbortError) Error() string {
	if e.Local {
		return "tunnel: channel aborted here: " + e.Reason
	}
	return "tunnel: channel aborted by the peer: " + e.Reason
}
