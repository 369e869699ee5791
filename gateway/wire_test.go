package gateway

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseLegHeaderRefuses(t *testing.T) {
	token := strings.Repeat("0a", 16)
	for name, h := range map[string]string{
		"empty":           ``,
		"no JSON":         `QEVM`,
		"unknown field":   `{"version":5,"session":"` + token + `","shell":"rm"}`,
		"other version":   `{"version":6,"session":"` + token + `"}`,
		"short token":     `{"version":5,"session":"abcd"}`,
		"upper-case":      `{"version":5,"session":"` + strings.ToUpper(token) + `"}`,
		"path in token":   `{"version":5,"session":"../../../../../../../../etc/pass"}`,
		"negative index":  `{"version":5,"session":"` + token + `","index":-1}`,
		"large index":     `{"version":5,"session":"` + token + `","index":260}`,
		"bytes afterward": `{"version":5,"session":"` + token + `"}{}`,
		"too long":        `{"version":5,"role":"` + strings.Repeat("x", maxControl) + `"}`,
	} {
		if _, err := parseLegHeader([]byte(h)); err == nil {
			t.Errorf("%s: %.80s is taken", name, h)
		}
	}
	good := legHeader{Version: protoVersion, Session: token, Index: 3, Role: roleMain}
	if got, err := parseLegHeader(encodeJSON(good)); err != nil || got != good {
		t.Errorf("%+v comes back as %+v, %v", good, got, err)
	}
}

// TestOlderPeer: a gateway that knows less than batches may hold refuses the move as a
// whole, and so do we, in words that tell which of the two is the older.
func TestOlderPeer(t *testing.T) {
	const session = "0123456789abcdef0123456789abcdef"
	_, control := parseControlHeader(encodeJSON(controlHeader{Version: protoVersion - 1, Token: session}))
	_, leg := parseLegHeader(encodeJSON(legHeader{Version: protoVersion - 1, Session: session, Role: roleMain}))
	for _, err := range []error{control, leg} {
		if err == nil || !strings.HasSuffix(err.Error(), "version 4, this gateway speaks 5") {
			t.Errorf("of a gateway with the first form of record.Fold: error %v", err)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	for _, c := range []control{
		{Type: msgPrepare, Job: &Job{ID: "m-1", VM: "db1"}, Spec: &Spec{VM: "db1", Token: strings.Repeat("0", 32), Args: []string{"qemu"}}},
		{Type: msgLoaded, Streams: []streamDigest{{Index: 0, Bytes: 5, Digest: "00"}}},
		{Type: msgRunning, Took: 5},
		{Type: msgAbort, Reason: "because"},
	} {
		f.Add(encodeJSON(c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseControl(b)
		if err != nil {
			return
		}
		again, err := parseControl(encodeJSON(c))
		if err != nil {
			t.Fatalf("%q parses, but what is written of it does not: %v", b, err)
		}
		x, _ := json.Marshal(c)
		if y, _ := json.Marshal(again); string(x) != string(y) {
			t.Errorf("%q: %s, then %s", b, x, y)
		}
	})
}

func FuzzParseHeaders(f *testing.F) {
	f.Add(encodeJSON(legHeader{Version: protoVersion, Session: strings.Repeat("0", 32), Role: roleMultifd}))
	f.Add(encodeJSON(controlHeader{Version: protoVersion, Token: strings.Repeat("f", 32)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseLegHeader(b); err == nil && (!validToken(h.Session) || h.Index < 0 || h.Index >= maxLegs) {
			t.Errorf("%q is taken: %+v", b, h)
		}
		if h, err := parseControlHeader(b); err == nil && !validToken(h.Token) {
			t.Errorf("%q is taken: %+v", b, h)
		}
	})
}

func TestSplitAddress(t *testing.T) {
	for in, want := range map[string][2]string{
		"tcp:127.0.0.1:49300": {"tcp", "127.0.0.1:49300"},
		"tcp:[::1]:1":         {"tcp", "[::1]:1"},
		"unix:/run/x.sock":    {"unix", "/run/x.sock"},
	} {
		if n, a, err := splitAddress(in); n != want[0] || a != want[1] || err != nil {
			t.Errorf("%q is %q, %q, %v", in, n, a, err)
		}
	}
	for _, in := range []string{"", "tcp", "tcp:", "tcp:localhost", "tcp:localhost:65536", "tcp:localhost:x", "tcp:localhost:", "unix:run/x", "udp:1.2.3.4:5", "/run/x", "fd:3"} {
		if n, a, err := splitAddress(in); err == nil {
			t.Errorf("%q is taken as %q, %q", in, n, a)
		}
	}
}
