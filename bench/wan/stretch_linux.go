package wan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Addresses on the segment of a cell.
const stretchA, stretchB = "10.83.0.1", "10.83.0.2"

// wireguardMTU is that of the tunnel's device, as bench/wan/wireguard makes it.
const wireguardMTU = 1420

// vxlanStretch is the Stretch that is the kernel's VXLAN over wireguard-go.
const vxlanStretch = "vxlan"

// startStretch stretches a segment between the ends, which get addresses on it.
func (b *bed) startStretch(ctx context.Context, p Peer, r Row, o Options) (err error) {
	dev := stretchBridge
	if p.Stretch == vxlanStretch {
		if err = b.startWireguard(ctx, o.Wireguard); err != nil {
			return fmt.Errorf("wireguard: %w", err)
		}
		dev = "vx0"
		err = errors.Join(b.shakeHands(), b.startVXLAN(dev))
	} else {
		err = b.startGateways(ctx, p, r, o)
	}
	if err != nil {
		return err
	}
	for i, addr := range []string{stretchA, stretchB} {
		err = errors.Join(err, b.ns[i].Up(dev), b.ns[i].Addr(dev, addr+"/24"))
	}
	return err
}

// startGateways starts two, whose link is up and whose segment is there after it.
func (b *bed) startGateways(ctx context.Context, p Peer, r Row, o Options) error {
	c := endConfig{Peer: p, Addr: addrB + ":7448", Rate: p.rate(r), Dir: filepath.Join(b.dir, siteB)}
	c.Peer.Protocol, c.Peer.Conns = "stretch", 0
	if _, err := b.startEnd(ctx, 1, c, o); err != nil {
		return err
	}
	c.Sends, c.Dir = true, filepath.Join(b.dir, siteA)
	_, err := b.startEnd(ctx, 0, c, o)
	return err
}

// shakeHands has wireguard-go at one end begin. When both do at once, on behalf of
// what the kernel says on new devices, they come to terms only after 5 s.
func (b *bed) shakeHands() error {
	return b.ns[0].Do(func() error {
		const nobody = ":9" // a refusal is an answer
		c, err := net.DialTimeout("tcp", insideB+nobody, linkTime)
		if err == nil {
			_ = c.Close()
		} else if !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("wireguard does not answer: %w", err)
		}
		return nil
	})
}

// startVXLAN makes a device over the tunnel in each namespace. Its MTU is what is
// left of the tunnel's.
func (b *bed) startVXLAN(dev string) error {
	inside := []string{insideA, insideB}
	for i, ns := range b.ns {
		args := []string{"link", "add", dev, "type", "vxlan", "id", "81", "local", inside[i], "remote", inside[1-i], "dstport", "4789"}
		err := ns.Do(func() error {
			out, err := exec.CommandContext(context.Background(), "ip", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
			}
			return ns.SetMTU(dev, wireguardMTU-50) // VXLAN's headers (RFC 7348, section 5)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
