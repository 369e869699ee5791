package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Two gateways talk about a move in JSON messages on a control channel of the
// urgent class: a few messages in each move, none on the path of a page.
// Unknown fields are refused, so that a newer peer's order is never half
// understood; the version in the header of the channel is raised for each
// change.

// protoVersion is the version of the control messages and of the headers, and so of
// what legs carry: batches say for themselves what they are (package record), but the
// first that a peer does not know would end a move that is under way. The header of
// the control channel is refused before the move has done anything.
//
//	2  streams of packed multifd channels are unpacked
//	3  batches may be coded with record.Press
//	4  with record.Fold
//	5  with that of another form
const protoVersion = 5

// maxControl bounds one control message in bytes. The longest is an order to
// prepare, which holds a command line.
const maxControl = 1 << 20

// Kinds of channel.
const (
	kindControl uint16 = 1 // orders and answers of one move
	kindLeg     uint16 = 2 // one hypervisor connection of a session
	kindL2      uint16 = 3 // urgent messages of l2ext
	kindStore   uint16 = 4 // a catalog each way: dedup.Catalog
	kindPages   uint16 = 5 // pages that the opener has lost
	kindTest    uint16 = 6 // part of a test of the link
	kindSeed    uint16 = 7 // images: batches for the store, and seedEnd if they cannot be taken
	kindSummary uint16 = 8 // what the other end has of its own: parts of a dedup.Summary
)

// controlHeader opens a control channel.
type controlHeader struct {
	Version int    `json:"version"`
	Token   string `json:"token"` // of the move
}

// legHeader opens a channel that carries one hypervisor connection.
type legHeader struct {
	Version int    `json:"version"`
	Session string `json:"session"`          // token of the move, or of a forward's group of connections
	Index   int    `json:"index"`            // of the channel in its session, from 0
	Role    string `json:"role"`             // page.Facts.Format, or "silent"
	Target  string `json:"target,omitempty"` // of a forward: the address to dial

	// Tenant whose store the batches refer to: that of the session.
	Tenant string `json:"tenant,omitempty"`

	// Unpacked: the stream has gone through a page.Unpacker, and Formats.Pack
	// has to put it back.
	Unpacked bool `json:"unpacked,omitempty"`
}

// storeHeader opens an exchange of catalogs, or a channel of images.
type storeHeader struct {
	Version int    `json:"version"`
	Tenant  string `json:"tenant,omitempty"` // whose content; images are nobody's
}

// control is one message of a control channel; Type says which fields hold.
type control struct {
	Type string `json:"type"`

	// prepare
	Job  *Job   `json:"job,omitempty"`
	Spec *Spec  `json:"spec,omitempty"`
	Host string `json:"host,omitempty"`

	// prepare: the VM did not execute when the move began, and shall not after it
	Paused bool `json:"paused,omitempty"`

	// prepare: whose the VM is; only what crossed for him may be referred to
	Tenant string `json:"tenant,omitempty"`

	// prepared
	NICs []NIC `json:"nics,omitempty"`

	// loaded: the destination's view of the streams
	Streams []streamDigest `json:"streams,omitempty"`

	// running: what followed the order, by the destination's clock
	ResumeAt time.Time     `json:"resume_at,omitzero"`
	Took     time.Duration `json:"took,omitempty"` // from the order to the VM's execution

	// progress, abort and done, from the source for the destination's `job show`
	Progress *JobProgress `json:"progress,omitempty"`
	State    JobState     `json:"state,omitempty"`
	Report   *JobReport   `json:"report,omitempty"`

	// refused, failed, aborted, drain, abort: why
	Reason string `json:"reason,omitempty"`
	Rotten bool   `json:"rotten,omitempty"` // of failed and aborted: refer to nothing of the past any more
	Store  bool   `json:"store,omitempty"`  // of failed and aborted: the two do not hold the same store; begin with new ones

	// aborted: what the destination has found wrong with the stream before
	Cause string `json:"cause,omitempty"`
}

// The messages. From the source: prepare, commit, drain, abort, progress, done. From
// the destination: prepared, refused, loaded, failed, running, aborted,
// unknown, query.
const (
	msgPrepare  = "prepare"  // start a process for Spec and let it wait
	msgPrepared = "prepared" // it waits
	msgRefused  = "refused"  // it does not, Reason says why
	msgLoaded   = "loaded"   // all of the VM's state is in the process, which is paused
	msgFailed   = "failed"   // the process cannot load the stream
	msgCommit   = "commit"   // run; the source will not
	msgRunning  = "running"  // the VM runs at the destination
	msgDrain    = "drain"    // the source keeps the VM: what still comes is for the store alone; abort follows. Gateways that do not know it need not
	msgAbort    = "abort"    // end the process; the source keeps the VM
	msgAborted  = "aborted"  // it has ended and will never run
	msgUnknown  = "unknown"  // the destination has no record of this move
	msgProgress = "progress"
	msgDone     = "done"  // the job has ended at the source, as State says
	msgQuery    = "query" // what of this move? Sent by a destination that has lost its control channel
)

// streamDigest is how far one channel has come, and the digest of its bytes.
type streamDigest struct {
	Index  int    `json:"index"`
	Bytes  int64  `json:"bytes"`
	Digest string `json:"digest"` // hex
}

func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("gateway: %T cannot be written as JSON: %v", v, err)) // our own types
	}
	return b
}

// decodeJSON reads one strict JSON value of a peer.
func decodeJSON(b []byte, v any) error {
	if len(b) > maxControl {
		return fmt.Errorf("%d bytes are over the limit of %d", len(b), maxControl)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("bytes after the value at %d", d.InputOffset())
	}
	return nil
}

func parseControl(b []byte) (control, error) {
	var m control
	if err := decodeJSON(b, &m); err != nil {
		return m, fmt.Errorf("reading control message: %w", err)
	}
	return m, nil
}

func parseLegHeader(b []byte) (legHeader, error) {
	var h legHeader
	if err := decodeJSON(b, &h); err != nil {
		return h, fmt.Errorf("reading header of a leg: %w", err)
	}
	if h.Version != protoVersion {
		return h, fmt.Errorf("reading header of a leg: version %d, this gateway speaks %d", h.Version, protoVersion)
	}
	if !validToken(h.Session) || h.Index < 0 || h.Index >= maxLegs {
		return h, fmt.Errorf("reading header of a leg: session %.40q, index %d: not valid", h.Session, h.Index)
	}
	return h, nil
}

func parseStoreHeader(b []byte) (storeHeader, error) {
	var h storeHeader
	if err := decodeJSON(b, &h); err != nil {
		return h, fmt.Errorf("reading header of a store's channel: %w", err)
	}
	if h.Version != protoVersion {
		return h, fmt.Errorf("reading header of a store's channel: version %d, this gateway speaks %d", h.Version, protoVersion)
	}
	return h, nil
}

func parseControlHeader(b []byte) (controlHeader, error) {
	var h controlHeader
	if err := decodeJSON(b, &h); err != nil {
		return h, fmt.Errorf("reading header of a control channel: %w", err)
	}
	if h.Version != protoVersion {
		return h, fmt.Errorf("reading header of a control channel: version %d, this gateway speaks %d", h.Version, protoVersion)
	}
	if !validToken(h.Token) {
		return h, fmt.Errorf("reading header of a control channel: token %.40q: not 32 hex digits", h.Token)
	}
	return h, nil
}

// validToken tells whether s is 32 lower-case hex digits.
func validToken(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 32
}

// A message of a leg's channel, source to destination, is a batch of
// dedup/record, or a seal, which is told by its first byte; the other way it is
// the bytes of the return path as they are.

// seal names the digests that must agree before the end of a stream is
// delivered.
type seal struct {
	Streams []streamDigest `json:"streams"`
}

// sealStart is how a seal begins; a batch begins with record's magic.
const sealStart = '{'
