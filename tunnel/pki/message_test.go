package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadMessage(t *testing.T) {
	var b bytes.Buffer
	if err := writeMessage(&b, kindSync, []byte("list")); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()
	if want := "LHP1\x03\x00\x00\x00\x04list"; string(raw) != want {
		t.Errorf("got %q, want %q", raw, want)
	}
	kind, body, err := readMessage(bytes.NewReader(raw))
	if kind != kindSync || string(body) != "list" || err != nil {
		t.Errorf("got %d, %q, %v", kind, body, err)
	}
	for i := range raw {
		if _, _, err := readMessage(bytes.NewReader(raw[:i])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for _, bad := range []string{"GET / HTTP/1.1\r\n", "LHP1\x03\xff\xff\xff\xff", "LHP1\x03\x00\x04\x00\x01"} {
		if _, _, err := readMessage(strings.NewReader(bad)); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := writeMessage(io.Discard, kindSync, make([]byte, maxBody+1)); err == nil {
		t.Error("writes what nobody reads")
	}
}

func sampleEnrol() enrolRequest {
	return enrolRequest{"b1", []byte("csr"), []string{"192.0.2.1:7441"}}
}

func sampleCert() certAnswer {
	return certAnswer{[]byte("cert"), []byte("ca"), []byte("list"), []Peer{{"a", []string{"192.0.2.1:7441", "a.example:1"}}, {"c", []string{"[::1]:2"}}}}
}

// TestParsers: what is written is read, and nothing that is cut or too long.
func TestParsers(t *testing.T) {
	enrol, cert := sampleEnrol().append(nil), sampleCert().append(nil)
	gotEnrol, err := parseEnrol(enrol)
	if d := cmp.Diff(gotEnrol, sampleEnrol(), cmp.AllowUnexported(enrolRequest{})); d != "" || err != nil {
		t.Error(d, err)
	}
	gotCert, err := parseCert(cert)
	if d := cmp.Diff(gotCert, sampleCert(), cmp.AllowUnexported(certAnswer{})); d != "" || err != nil {
		t.Error(d, err)
	}
	for i := range enrol {
		if _, err := parseEnrol(enrol[:i]); err == nil {
			t.Errorf("request cut at %d is taken", i)
		}
	}
	for i := range cert {
		if _, err := parseCert(cert[:i]); err == nil {
			t.Errorf("answer cut at %d is taken", i)
		}
	}
	_, err1 := parseEnrol(append(enrol, 0))
	_, err2 := parseCert(append(cert, 0))
	if err1 == nil || err2 == nil {
		t.Error("a byte too many is taken")
	}
	for name, m := range map[string]certAnswer{
		"certificate too long": {cert: make([]byte, maxDER+1)},
		"bad site":             {peers: []Peer{{"A", []string{"192.0.2.1:1"}}}},
		"bad address":          {peers: []Peer{{"a", []string{"192.0.2.1"}}}},
		"no address":           {peers: []Peer{{"a", nil}}},
		"too many addresses":   {peers: []Peer{{"a", make([]string, maxAddrs+1)}}},
		"too many peers":       {peers: make([]Peer, maxPeers+1)},
	} {
		if _, err := parseCert(m.append(nil)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(sampleEnrol().append(nil))
	f.Add(sampleCert().append(nil))
	f.Add(appendRefusal(nil, ErrTokenUsed))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseEnrol(b); err == nil && !bytes.Equal(m.append(nil), b) {
			t.Errorf("%x is written %x", b, m.append(nil))
		}
		if m, err := parseCert(b); err == nil && !bytes.Equal(m.append(nil), b) {
			t.Errorf("%x is written %x", b, m.append(nil))
		}
		if parseRefusal(b) == nil {
			t.Errorf("%x is no refusal", b)
		}
		if kind, body, err := readMessage(bytes.NewReader(b)); err == nil {
			var w bytes.Buffer
			if writeMessage(&w, kind, body); !bytes.HasPrefix(b, w.Bytes()) {
				t.Errorf("%x is written %x", b, w.Bytes())
			}
		}
	})
}

// FuzzRevocations fuzzes what the signature protects, for the case that it
// does not.
func FuzzRevocations(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	l := &revocations{number: 7, issued: time.Unix(1700000000, 0), entries: []Revocation{
		{Site: "b", At: time.Unix(1700000000, 0)}, {Serial: "0102ff", At: time.Unix(1700000001, 0)}}}
	if err := l.encode(key); err != nil {
		f.Fatal(err)
	}
	f.Add(l.raw[:len(l.raw)-ed25519.SignatureSize])
	ca := &x509.Certificate{PublicKey: key.Public()}
	f.Fuzz(func(t *testing.T, body []byte) {
		raw := append(bytes.Clone(body), ed25519.Sign(key, append([]byte(revocationContext), body...))...)
		l, err := parseRevocations(raw, ca)
		if err != nil {
			return
		}
		again := &revocations{number: l.number, issued: l.issued, entries: l.entries}
		if err := again.encode(key); err != nil || !bytes.Equal(again.raw, raw) {
			t.Errorf("%x is written %x, %v", raw, again.raw, err)
		}
	})
}
