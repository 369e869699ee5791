// Command wireguard is one end of a wireguard-go tunnel with one peer, for
// bench/wan. It makes the device, says "ready" and runs until its input ends. It
// is a module of its own so that the product does not depend on wireguard-go.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// mtu of the tunnel: 1500 less IPv6, UDP and WireGuard's own 32 bytes, as wg-quick(8) has it.
const mtu = 1420

func main() {
	name := flag.String("device", "wg0", "name of the device")
	port := flag.Int("port", 51820, "UDP port to listen on")
	private := flag.String("private", "", "private key, hex")
	peer := flag.String("peer", "", "public key of the peer, hex")
	endpoint := flag.String("endpoint", "", "address of the peer")
	allowed := flag.String("allowed", "", "what is reached through the peer, a prefix")
	flag.Parse()
	err := run(*name, fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=%s\n",
		*private, *port, *peer, *endpoint, *allowed))
	if err != nil {
		fmt.Fprintln(os.Stderr, "wireguard:", err)
		os.Exit(1)
	}
}

func run(name, config string) error {
	t, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return fmt.Errorf("making the device: %w", err)
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, "wireguard: "))
	defer d.Close()
	if err := d.IpcSet(config); err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
