package hostnet

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// maxTogether is how many requests go to the kernel in one call: every one of
	// them may be answered with an error, for each of which the kernel counts
	// 800 bytes against the 208 KiB that a socket receives by default.
	maxTogether = 128

	// rawTimeout bounds the wait for an answer, which is there when the request
	// has been sent: the kernel carries it out in the same call.
	rawTimeout = 5 * time.Second
)

// rawSocket sends what netlink's API has no call for, and much at once.
type rawSocket struct {
	mu sync.Mutex // one batch at a time
	s  *nl.NetlinkSocket
	in []byte
}

func openRaw(ns netns.NsHandle) (*rawSocket, error) {
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	timeout := unix.NsecToTimeval(rawTimeout.Nanoseconds())
	if err := s.SetReceiveTimeout(&timeout); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	return &rawSocket{s: s, in: make([]byte, 64<<10)}, nil
}

func (r *rawSocket) execute(req *nl.NetlinkRequest) error {
	return r.executeAll([]*nl.NetlinkRequest{req})[0]
}

// executeAll carries requests out in order, each whether or not others fail,
// and tells for each how it went.
func (r *rawSocket) executeAll(reqs []*nl.NetlinkRequest) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := make([]error, len(reqs))
	for from := 0; from < len(reqs); from += maxTogether {
		to := min(from+maxTogether, len(reqs))
		if err := r.some(reqs[from:to], errs[from:to]); err != nil {
			for i := from; i < len(reqs); i++ {
				errs[i] = err
			}
			break
		}
	}
	return errs
}

// some carries out one batch. The kernel answers what failed, and the last: only
// that asks for it.
func (r *rawSocket) some(reqs []*nl.NetlinkRequest, errs []error) error {
	var out []byte
	index := make(map[uint32]int, len(reqs))
	for i, req := range reqs {
		req.Flags &^= unix.NLM_F_ACK
		if i == len(reqs)-1 {
			req.Flags |= unix.NLM_F_ACK
		}
		out = append(out, req.Serialize()...)
		index[req.Seq] = i
	}
	return r.exchange(out, func(m syscall.NetlinkMessage) (done bool) {
		i, ours := index[m.Header.Seq] // an answer that came too late for its batch is not
		code, ok := codeOf(m)
		if !ours || !ok {
			return false
		}
		errs[i] = code
		return i == len(reqs)-1
	})
}

// get carries out a request that the kernel answers with one message, and returns what
// is in it.
func (r *rawSocket) get(req *nl.NetlinkRequest) (answer []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	req.Flags |= unix.NLM_F_ACK
	var failed error
	err = r.exchange(req.Serialize(), func(m syscall.NetlinkMessage) (done bool) {
		if m.Header.Seq != req.Seq { // an answer that came too late for the one before
			return false
		}
		if failed, done = codeOf(m); !done {
			answer = bytes.Clone(m.Data)
		}
		return done
	})
	return answer, cmp.Or(err, failed)
}

// codeOf reads the end of a request: nil, or why it was not carried out.
func codeOf(m syscall.NetlinkMessage) (failed error, end bool) {
	if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
		return nil, false
	}
	if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
		failed = syscall.Errno(-code)
	}
	return failed, true
}

// exchange sends requests and reads what the kernel says, until take has got all.
func (r *rawSocket) exchange(out []byte, take func(syscall.NetlinkMessage) (done bool)) error {
	if err := unix.Sendto(r.s.GetFd(), out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending to the kernel: %w", err)
	}
	for {
		n, _, err := unix.Recvfrom(r.s.GetFd(), r.in, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the kernel's answer: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(r.in[:n])
		if err != nil {
			return fmt.Errorf("reading the kernel's answer: %w", err)
		}
		for _, m := range msgs {
			if take(m) {
				return nil
			}
		}
	}
}

func (r *rawSocket) close() { r.s.Close() }

// attributesIn reads what stands behind a message's header. The kernel fills each attribute up to four bytes, the last one
// too, and the library relies on it.
func attributesIn(b []byte) ([]syscall.NetlinkRouteAttr, error) {
	if odd := len(b) % unix.NLA_ALIGNTO; odd != 0 {
		b = append(slices.Clip(b), make([]byte, unix.NLA_ALIGNTO-odd)...)
	}
	return nl.ParseRouteAttr(b)
}
