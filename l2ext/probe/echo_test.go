package probe

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestEcho(t *testing.T) {
	e := Echo{Src: SourceOf([3]byte{7, 8, 9}), Reply: true, Number: 42, Size: 64}
	frame := e.Append(nil)
	want := "03004c480001" + "0a4c48070809" + "88b5" + "4c450102" + "000000000000002a"
	if got := hex.EncodeToString(frame); len(frame) != 64 || got[:len(want)] != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := ParseEcho(frame); err != nil || got != e {
		t.Errorf("%+v came back as %+v, %v", e, got, err)
	}
	for i := range MinEcho {
		if _, err := ParseEcho(frame[:i]); err == nil {
			t.Errorf("cut at %d it is an echo", i)
		}
	}
	if _, err := ParseEcho(sample.Append(nil, key)); err == nil {
		t.Error("a probe is an echo")
	}
	if _, err := Parse(frame); err == nil {
		t.Error("an echo is a probe")
	}
}

// TestEchoToGateway goes to one gateway, in mode direct.
func TestEchoToGateway(t *testing.T) {
	a, b := GatewayOf(100, "a"), GatewayOf(100, "b")
	if a == b || a == GatewayOf(101, "a") || !IsGateway(a) || a[0]&1 != 0 {
		t.Errorf("gateways are %x, %x, %x", a, b, GatewayOf(101, "a"))
	}
	e := Echo{Src: a, Dst: b, Number: 7, Size: 1514}
	if got, err := ParseEcho(e.Append(nil)); err != nil || got != e {
		t.Errorf("%+v came back as %+v, %v", e, got, err)
	}
	e.Dst = MAC{2, 0, 0, 0, 0, 1}
	if got, err := ParseEcho(e.Append(nil)); err == nil {
		t.Errorf("an echo for a host is %+v", got)
	}
}

func FuzzParseEcho(f *testing.F) {
	f.Add(Echo{Number: 1, Size: 1514}.Append(nil))
	f.Add(Echo{Number: 1, Size: 1514, Src: GatewayOf(100, "a"), Dst: GatewayOf(100, "b")}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := ParseEcho(b); err == nil && !bytes.Equal(e.Append(nil), b) {
			t.Errorf("%x is written %x", b, e.Append(nil))
		}
	})
}
