// Package ccslot puts a congestion controller of ours into a connection of
// quic-go v0.65.0, which has one of its own and no way to choose another.
//
// It is a module of its own with a name below quic-go's, because Go's rule for
// internal packages goes by import path: so it may use quic-go's internal
// interfaces, and when an upgrade changes one of them this package does not
// compile. The product's go.mod finds it by a replace. It is part of tunnel's
// door to quic-go; nobody else imports it.
//
// # When a controller is put in
//
// Install is to be called inside crypto/tls's VerifyConnection, at either end.
// crypto/tls runs the handshake and its caller, quic-go's run loop, strictly in
// turn (tls.QUICConn): during the callback the run loop is parked, and handing
// over orders our writes before all that it does afterwards. No packet with
// application data has been sent by then. Of a server, the peer may not have
// proved by then that it has the key of its certificate; so a controller is put
// in with nothing behind it, and gets its path later (congestion.Member.Join).
//
// # Where
//
// The connection is found by a value in its context, in the table of its
// transport, under the transport's own mutex. There the fields
//
//	Conn.sentPacketHandler                    ackhandler.SentPacketHandler
//	sentPacketHandler.congestion              congestion.SendAlgorithmWithDebugInfos
//
// are set: the second to our controller, the first to a wrapper of itself, since
// a connection that moves to another path makes itself a NewReno there.
//
// All unsafe code of Longhaul is in slot.go.
package ccslot
