package layer2

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// outside is an address of the line, by side; inside is of wireguard, and hostIP of
// the hosts.
func outside(i int) string { return fmt.Sprintf("10.81.0.%d", i+1) }
func inside(i int) string  { return fmt.Sprintf("10.82.0.%d", i+1) }
func hostIP(i int) string  { return fmt.Sprintf("10.77.0.%d", i+1) }

const (
	bridge  = "brbench"
	vni     = 100
	upTime  = 30 * time.Second // for link and segment to come up on the worst of the lines
	pollUp  = 50 * time.Millisecond
	lineMTU = 1600 // of the line: a full frame of the hosts fits into VXLAN
)

// A bed is four namespaces, the line between two of them, and what carries frames
// over it.
type bed struct {
	o        Options
	gw, host [2]*nstest.NS
	taps     [2]*wanem.Tap
	line     *wanem.Child
	dir      string
	procs    []*proc // in the order of sides
}

func newBed(r Row, m Mode, o Options) (b *bed, err error) {
	b = &bed{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	for i := range 2 {
		if b.gw[i], err = nstest.Create(""); err != nil {
			return b, err
		}
		if b.host[i], err = nstest.Create(""); err != nil {
			return b, err
		}
	}
	for i := range 2 {
		if err = b.lan(i); err != nil {
			return b, err
		}
	}
	if err = b.wan(r); err != nil {
		return b, err
	}
	return b, b.stretch(m)
}

// lan makes a side's bridge, with its host.
func (b *bed) lan(i int) error {
	const buffers = "4096 1048576 134217728"
	return errors.Join(
		nstest.Veth(b.gw[i], "lan0", b.host[i], "eth0"), b.gw[i].Bridge(bridge, "lan0"),
		b.host[i].Sysctl("ipv4.tcp_rmem", buffers), b.host[i].Sysctl("ipv4.tcp_wmem", buffers),
		b.host[i].Addr("eth0", hostIP(i)+"/24"))
}

// wan makes the line.
func (b *bed) wan(r Row) (err error) {
	if r.Line.Rate == 0 {
		err = nstest.Veth(b.gw[0], "wan0", b.gw[1], "wan0")
	}
	for i := range 2 {
		if r.Line.Rate > 0 {
			err = errors.Join(err, b.gw[i].Do(func() (err error) {
				b.taps[i], err = wanem.OpenTap("wan0")
				return err
			}))
		}
		err = errors.Join(err, b.gw[i].SetMTU("wan0", lineMTU), b.gw[i].Up("wan0"), b.gw[i].Addr("wan0", outside(i)+"/24"))
	}
	if err != nil || r.Line.Rate == 0 {
		return err
	}
	b.line, err = wanem.StartChild(b.o.Emulator, b.taps[0], b.taps[1], wanem.Config{AB: r.Line, BA: r.Line, Seed: b.o.Seed, MTU: lineMTU})
	return err
}

// stretch has frames cross.
func (b *bed) stretch(m Mode) error {
	switch {
	case m.Segment != "":
		return b.startGateways(m)
	case m.Wireguard:
		if err := b.startWireguard(); err != nil {
			return fmt.Errorf("wireguard: %w", err)
		}
		return b.vxlan(inside)
	}
	return b.vxlan(outside)
}

// vxlan is what an operator makes by hand: it learns, and floods.
func (b *bed) vxlan(addr func(int) string) (err error) {
	for i := range 2 {
		err = errors.Join(err, b.gw[i].VXLAN("vx0", vni, addr(i), addr(1-i)), b.gw[i].Plug("vx0", bridge), b.gw[i].Up("vx0"))
	}
	return err
}

// startGateways runs our own at both sides.
func (b *bed) startGateways(m Mode) (err error) {
	if b.dir, err = os.MkdirTemp("", "longhaul-bench-layer2-"); err != nil {
		return err
	}
	sites := []string{"a", "b"}
	dirs := []string{filepath.Join(b.dir, "a"), filepath.Join(b.dir, "b")}
	if err := pki.Init(dirs[0], "bench", "a", "a1"); err != nil {
		return err
	}
	id, err := pki.Load(dirs[0])
	if err == nil {
		err = id.Provision(dirs[1], "b", "b1")
	}
	if err != nil {
		return err
	}
	for i := range 2 {
		c := gatewayConfig{
			Dir: dirs[i], Peer: sites[1-i], Underlay: netip.MustParseAddr(outside(i)),
			Segment: gateway.Segment{
				Name: "bench", VNI: vni, Bridge: bridge, Sites: sites[1-i : 2-i], Mode: string(m.Segment),
				Policy: gateway.SegmentPolicy{Streams: m.Streams},
			},
		}
		if i == 0 {
			c.Listen = outside(0) + ":7447"
		} else {
			c.Address = outside(0) + ":7447"
		}
		p, err := b.start(i, b.o.Gateway)
		if err == nil {
			err = p.in.Encode(c)
		}
		if err != nil {
			return err
		}
	}
	return b.waitUp()
}

// waitUp waits until both gateways say that the segment works.
func (b *bed) waitUp() error {
	var last gatewayReply
	for end := time.Now().Add(upTime); time.Now().Before(end); time.Sleep(pollUp) {
		up := true
		for _, p := range b.procs {
			r, err := p.ask("report")
			if err != nil {
				return err
			}
			if last = r; !r.Up {
				up = false
				break
			}
		}
		if up {
			return nil
		}
	}
	return fmt.Errorf("the segment is not up after %v: %+v", upTime, last)
}

// startWireguard runs wireguard-go at both sides.
func (b *bed) startWireguard() error {
	if b.o.Wireguard == "" {
		return errors.New("no program: build bench/wan/wireguard and pass -wireguard")
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	const port = "51820"
	for i, key := range keys {
		p, err := b.start(i, []string{b.o.Wireguard, "-device", "wg0", "-port", port,
			"-private", hex.EncodeToString(key.Bytes()), "-peer", hex.EncodeToString(keys[1-i].PublicKey().Bytes()),
			"-endpoint", outside(1-i) + ":" + port, "-allowed", inside(1-i) + "/32"})
		if err != nil {
			return err
		}
		if !p.out.Scan() { // says that the device is there
			return errors.Join(errEnded, p.out.Err())
		}
		// The hosts' full frames fit into VXLAN in wireguard in the line, as in other modes.
		if err := errors.Join(b.gw[i].SetMTU("wg0", lineMTU-60), b.gw[i].Up("wg0"), b.gw[i].Addr("wg0", inside(i)+"/24")); err != nil {
			return err
		}
	}
	return nil
}

// A proc is a process of a side.
type proc struct {
	cmd *exec.Cmd
	raw io.WriteCloser
	in  *json.Encoder
	out *bufio.Scanner
}

var errEnded = errors.New("the process has ended")

func (b *bed) start(i int, argv []string) (*proc, error) {
	p := &proc{cmd: exec.CommandContext(context.Background(), argv[0], argv[1:]...)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var err error
	if p.raw, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = json.NewEncoder(p.raw), bufio.NewScanner(out)
	if err := b.gw[i].Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	b.procs = append(b.procs, p)
	return p, nil
}

// ask sends a command to a gateway and reads the answer.
func (p *proc) ask(command string) (r gatewayReply, err error) {
	if err := p.in.Encode(command); err != nil {
		return r, errors.Join(errEnded, err)
	}
	if !p.out.Scan() {
		return r, errors.Join(errEnded, p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		err = errors.New(r.Error)
	}
	return r, err
}

func (b *bed) pids() (pids []int) {
	for _, p := range b.procs {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pids
}

// close ends all processes and takes all away.
func (b *bed) close() (err error) {
	for _, p := range b.procs {
		_ = p.raw.Close()
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
	if b.line != nil {
		err = b.line.Close()
	}
	for i := range 2 {
		if b.taps[i] != nil {
			err = errors.Join(err, b.taps[i].Close())
		}
		for _, ns := range []*nstest.NS{b.gw[i], b.host[i]} {
			if ns != nil {
				err = errors.Join(err, ns.Close())
			}
		}
	}
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}
