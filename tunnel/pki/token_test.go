package pki

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestToken(t *testing.T) {
	a, clock := fleet(t)
	line, err := a.CreateToken("b", 90*time.Minute+300*time.Millisecond, "gw.example.org:7441", "[2001:db8::1]:7441")
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(line, " \n\t") || len(line) > 160 {
		t.Errorf("%d characters: %s", len(line), line)
	}
	tok, err := ParseToken(" " + line + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if tok.Site != "b" || !reflect.DeepEqual(tok.Addrs, []string{"gw.example.org:7441", "[2001:db8::1]:7441"}) ||
		!tok.Issued.Equal(clock.Truncate(time.Second)) || !tok.Expires.Equal(tok.Issued.Add(90*time.Minute)) {
		t.Errorf("got %+v", tok)
	}
	for _, text := range []string{fmt.Sprint(tok), fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, tok)} {
		if strings.Contains(text, string(tok.secret[:])) || strings.Contains(text, "secret") || !strings.Contains(text, "site b") {
			t.Errorf("printed as %q", text)
		}
	}
	if tok.Line() != line {
		t.Errorf("written as %s, was %s", tok.Line(), line)
	}
	two := mustToken(t, a, "b", time.Hour)
	if two.secret == mustToken(t, a, "b", time.Hour).secret {
		t.Error("two tokens have one secret")
	}
}

func TestCreateTokenRefuses(t *testing.T) {
	a, _ := fleet(t)
	const addr = "192.0.2.1:7441"
	for _, tt := range []struct {
		name  string
		site  string
		ttl   time.Duration
		addrs []string
	}{
		{"site", "B", time.Hour, []string{addr}},
		{"no address", "b", time.Hour, nil},
		{"too many addresses", "b", time.Hour, []string{addr, addr, addr, addr, addr, addr, addr, addr, addr}},
		{"no port", "b", time.Hour, []string{"192.0.2.1"}},
		{"port 0", "b", time.Hour, []string{"192.0.2.1:0"}},
		{"named port", "b", time.Hour, []string{"192.0.2.1:http"}},
		{"no host", "b", time.Hour, []string{":7441"}},
		{"space", "b", time.Hour, []string{"a b:7441"}},
		{"long", "b", time.Hour, []string{strings.Repeat("a", 255) + ":7441"}},
		{"no life", "b", 0, []string{addr}},
		{"negative life", "b", -time.Hour, []string{addr}},
		{"half a second", "b", time.Second / 2, []string{addr}},
		{"a year", "b", 365 * 24 * time.Hour, []string{addr}},
	} {
		if line, err := a.CreateToken(tt.site, tt.ttl, tt.addrs...); err == nil {
			t.Errorf("%s: got %s", tt.name, line)
		}
	}
}

// TestTokenDamaged: any change of one character is noticed, and every cut.
func TestTokenDamaged(t *testing.T) {
	a, _ := fleet(t)
	line := mustToken(t, a, "b", time.Hour).Line()
	for i := range line {
		for _, c := range []byte{'A', 'z', '-', '!', ' '} {
			if bad := line[:i] + string(c) + line[i+1:]; strings.TrimSpace(bad) != line {
				if tok, err := ParseToken(bad); err == nil {
					t.Errorf("%s gives %v", bad, tok)
				}
			}
		}
		if tok, err := ParseToken(line[:i]); err == nil {
			t.Errorf("cut at %d gives %v", i, tok)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"", "does not begin"},
		{"hello", "does not begin"},
		{"lh2-" + line[4:], "does not begin"},
		{line + "A", "damaged"},
		{line[:50] + "\n" + line[50:], "more than one line"},
		{"lh1-" + strings.Repeat("A", 5000), "more than any token"},
		{"lh1-AAA", "cut short"},
		{line[:60] + "AAAA" + line[64:], "checksum"},
	} {
		_, err := ParseToken(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "join token: ") {
			t.Errorf("%.40q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

// FuzzToken: a line that parses is the line that the token is written as.
func FuzzToken(f *testing.F) {
	tok := Token{Site: "b", Addrs: []string{"192.0.2.1:7441"}, Issued: time.Unix(1700000000, 0), Expires: time.Unix(1700003600, 0)}
	f.Add(tok.Line())
	tok.Addrs = append(tok.Addrs, "[2001:db8::1]:7441", "gw.example.org:1")
	f.Add(tok.Line())
	f.Add("lh1-")
	f.Fuzz(func(t *testing.T, line string) {
		tok, err := ParseToken(line)
		if err == nil && tok.Line() != strings.TrimSpace(line) {
			t.Errorf("%q is written %q", line, tok.Line())
		}
	})
}

// FuzzTokenBody is FuzzToken behind the checksum, which a fuzzer does not guess.
func FuzzTokenBody(f *testing.F) {
	body := make([]byte, nonceSize)
	body = append(body, 0x65, 0, 0, 0, 0, 0, 0x0e, 0x10)
	body = append(body, make([]byte, fingerprintSize+secretSize)...)
	f.Add(append(body, "\x01b\x01\x0e192.0.2.1:7441"...))
	f.Fuzz(func(t *testing.T, body []byte) {
		tok, err := decodeToken(body)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.Line())
		if err != nil || !reflect.DeepEqual(again, tok) {
			t.Errorf("%x gives %+v, and that %+v, %v", body, tok, again, err)
		}
	})
}

// TestRefusals: who asks can decide by the reason.
func TestRefusals(t *testing.T) {
	for _, want := range refusals() {
		err := parseRefusal(appendRefusal(nil, fmt.Errorf("wrapped: %w", want)))
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := parseRefusal(appendRefusal(nil, errors.New("some\nthing"))); err == nil || !strings.Contains(err.Error(), `some\nthing`) {
		t.Errorf("got %v", err)
	}
	for _, b := range [][]byte{nil, make([]byte, maxText+2)} {
		if err := parseRefusal(b); err == nil {
			t.Errorf("%d bytes are no error", len(b))
		}
	}
	if b := appendRefusal(nil, errors.New(strings.Repeat("x", 5000))); len(b) > 1+maxText {
		t.Errorf("%d bytes", len(b))
	}
}
