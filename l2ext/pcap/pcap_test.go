package pcap

import (
	"encoding/hex"
	"testing"
	"time"
)

func TestAppend(t *testing.T) {
	b := AppendHeader(nil, 96)
	if len(b) != HeaderLen {
		t.Errorf("the header has %d bytes", len(b))
	}
	b = AppendFrame(b, time.Unix(0x01020304, 5), []byte{0xaa, 0xbb}, 60)
	const want = "a1b23c4d000200040000000000000000" + "0000006000000001" + "0102030400000005000000020000003c" + "aabb"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}
