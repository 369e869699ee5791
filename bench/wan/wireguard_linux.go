package wan

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// wireguardPort of both ends, in UDP.
const wireguardPort = "51820"

// errNoWireguard is why cells with wireguard are left out.
var errNoWireguard = errors.New("no program: build bench/wan/wireguard and pass -wireguard")

// startWireguard runs wireguard-go at both ends.
func (b *bed) startWireguard(ctx context.Context, program string) error {
	if program == "" {
		return errNoWireguard
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	outside, inside := []string{addrA, addrB}, []string{insideA, insideB}
	for i, key := range keys {
		p, err := b.start(ctx, i, []string{program,
			"-device", "wg0", "-port", wireguardPort,
			"-private", hex.EncodeToString(key.Bytes()),
			"-peer", hex.EncodeToString(keys[1-i].PublicKey().Bytes()),
			"-endpoint", outside[1-i] + ":" + wireguardPort,
			"-allowed", inside[1-i] + "/32"})
		if err != nil {
			return err
		}
		if !p.out.Scan() { // says that the device is there
			return errors.Join(errEnded, p.out.Err())
		}
		if err := errors.Join(b.ns[i].Up("wg0"), b.ns[i].Addr("wg0", inside[i]+"/24")); err != nil {
			return err
		}
	}
	return nil
}
