// Package pki gives the sites of a fleet their identities: a fleet has one CA,
// each gateway a certificate that names its site, and a one-line token lets a
// new gateway in. It opens no sockets; who calls it carries its messages.
//
// # State directory
//
//	ca.crt    certificate of the fleet's CA, 20 years
//	ca.key    its key; at the founding gateway only, never leaves it
//	site.crt  this gateway's certificate, 90 days, renewed after 60
//	site.key  its key; made here, never leaves, new at each renewal
//	revoked   the signed revocation list, when there is one (revocation.go)
//	used      tokens that have been used and have not expired; founding gateway only
//
// Keys are Ed25519 in PKCS #8 PEM, mode 0600; a key that others may read is
// refused. Every file is replaced by rename after fsync.
//
// # Names
//
// A certificate carries exactly one URI SAN:
//
//	longhaul://site/SITE/GATEWAY       of a gateway, signed by the CA
//	longhaul://enrol/SITE/NONCE/ISSUED/EXPIRES   of a token's holder, signed by itself
//
// Names match [a-z0-9-]{1,32}.
//
// # TLS
//
// TLS 1.3 only, both sides authenticated, no session tickets. ServerTLS serves
// two protocols (ALPN): "longhaul/1" for gateways of the fleet, and, at the
// founding gateway, "longhaul-enrol/1" for holders of a token. Anybody else
// fails in the handshake, before anything is allocated for them. A dialling
// side names the site it wants by setting ServerName(site) in a clone of
// ClientTLS; without it, it must look at PeerSite itself.
//
// Mind that in TLS 1.3 a dialler's handshake ends before the acceptor has
// judged the dialler's certificate: a refusal arrives with the first read.
//
// # A token and how it is used
//
// The token (token.go) holds the founding gateway's addresses, a fingerprint of
// the CA, the site, when it was issued, its life, and a secret. The secret is
// derived from the CA's key and the rest, so the founding gateway recognises
// its tokens without keeping a list of those not used yet, and a changed token
// is a stranger's. From the secret both ends derive one Ed25519 key: the
// joiner proves in the handshake that it has it.
//
// To wire enrolment over QUIC (TCP with TLS is the same with a connection in
// place of the stream), with one bidirectional stream:
//
//	joiner:  tok, err := pki.ParseToken(line)
//	         conn, err := transport.Dial(ctx, addr of tok.Addrs, tok.TLS(), nil)
//	         stream, err := conn.OpenStreamSync(ctx)
//	         joined, err := pki.Enrol(ctx, stream, pki.Request{Dir: dir, Token: tok, Gateway: "b1"})
//	founder: listener with id.ServerTLS(); for each connection whose
//	         ConnectionState().TLS.NegotiatedProtocol is pki.EnrolProto:
//	         stream, err := conn.AcceptStream(ctx)
//	         err = enroller.Handle(ctx, stream, conn.ConnectionState().TLS)
//	         stream.Close(); wait for the joiner to close, 5 s at most; close.
//
// A token is spent when its certificate has been signed. Until it expires, the
// same joiner may ask again with the same key, for the case that the answer
// was lost; anybody else is refused.
//
// # Renewal and revocation
//
// Both are requests on a stream of an authenticated connection (ALPN
// "longhaul/1") to any gateway's Enroller.Handle: Renew needs the founding
// gateway, Sync works between any two. The founding gateway renews itself
// with RenewSelf. Ask RenewDue once an hour or so. A new certificate applies
// from the next handshake on, without a restart.
//
// Sync when a link comes up. After OnRevocation's callback, Sync with all
// peers, for so a list spreads and comes to rest (the same number changes
// nothing and calls nobody back), and ask Check for every open connection and
// close those that it refuses. Check also refuses a certificate that has
// expired since its handshake; the peer comes back with its renewed one.
//
// # Messages
//
// A request and its answer, each one frame, big endian (message.go):
//
//	| "LHP1" (4) | Kind (1) | Len (4) | Body (Len) |   Len <= 256 KiB
package pki
