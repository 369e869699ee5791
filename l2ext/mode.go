package l2ext

import (
	"fmt"
	"slices"
	"strings"
)

// Mode says how a segment's frames go to other sites. It is the same at all
// sites of a segment, and is never changed by itself: a segment whose mode does not
// work is down, and says so.
type Mode string

// The modes.
const (
	// Secure carries frames inside the link: encrypted, through whatever the
	// link gets through.
	Secure Mode = "secure"

	// Direct has the kernel carry frames over a network between the sites that
	// is private: neither encrypted nor seen by the gateway, at the kernel's speed.
	Direct Mode = "direct"

	// SecureFast carries frames in datagrams of the gateway's own beside the link:
	// encrypted, over the link's UDP port, and as the kernel has them before it
	// cuts them to segments.
	SecureFast Mode = "secure-fast"
)

// Modes are all that there are, the default first.
func Modes() []Mode { return []Mode{Secure, Direct, SecureFast} }

// orDefault is the mode that is meant by m.
func (m Mode) orDefault() Mode {
	if m == "" {
		return Modes()[0]
	}
	return m
}

// Check refuses a word that is no mode. "" is the default.
func (m Mode) Check() error {
	if m == "" || slices.Contains(Modes(), m) {
		return nil
	}
	words := make([]string, 0, len(Modes()))
	for _, known := range Modes() {
		words = append(words, string(known))
	}
	return fmt.Errorf("mode %q: %s", string(m), strings.Join(words, " or "))
}
