package layer2

import (
	"fmt"
	"slices"
	"strings"

	"github.com/longhaul-project/longhaul/l2ext"
)

// A Mode is a way of frames to the other site.
type Mode struct {
	Name string
	// Segment is the mode of our own segment; "" where there is none of ours.
	Segment l2ext.Mode
	// Streams is its policy for TCP, in mode secure; "" is auto.
	Streams string
	// Wireguard: the kernel's VXLAN runs inside a wireguard-go tunnel.
	Wireguard bool
}

// Base is the mode with which others are compared.
const Base = "vxlan"

// Modes are all modes, in the order of the table. One of our own is a line here.
func Modes() []Mode {
	return []Mode{
		{Name: Base},
		{Name: "direct", Segment: l2ext.Direct},
		{Name: "secure", Segment: l2ext.Secure, Streams: "off"},
		{Name: "streams", Segment: l2ext.Secure, Streams: "on"},
		{Name: "secure-fast", Segment: l2ext.SecureFast},
		{Name: "wireguard", Wireguard: true},
	}
}

// SelectModes finds modes by their names; none picks all.
func SelectModes(names []string) ([]Mode, error) {
	if len(names) == 0 {
		return Modes(), nil
	}
	var picked []Mode
	for _, name := range names {
		i := slices.IndexFunc(Modes(), func(m Mode) bool { return m.Name == name })
		if i < 0 {
			var all []string
			for _, m := range Modes() {
				all = append(all, m.Name)
			}
			return nil, fmt.Errorf("no mode %q; there are %s", name, strings.Join(all, ", "))
		}
		picked = append(picked, Modes()[i])
	}
	return picked, nil
}
