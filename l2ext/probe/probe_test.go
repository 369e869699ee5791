package probe

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

var (
	key    = Key{1, 2, 3}
	sample = Probe{Src: SourceOf([3]byte{7, 8, 9}), VNI: 100, Nonce: 42, Site: "a"}
)

func TestAppend(t *testing.T) {
	const want = "03004c480001" + "0a4c48070809" + "88b5" + "4c500101" + "00000064" + "000000000000002a" + "61" +
		"cb01b8b37e24024cfe5282ba25ac137a"
	got := sample.Append(nil, key)
	if len(got) != minFrame {
		t.Errorf("%d bytes", len(got))
	}
	if h := hex.EncodeToString(got[:len(want)/2]); h != want {
		t.Errorf("got\n%s, want\n%s", h, want)
	}
}

func TestParse(t *testing.T) {
	for _, site := range []string{"a", "site-b", strings.Repeat("s", maxSite)} {
		p := sample
		p.Site = site
		frame := p.Append(nil, key)
		got, err := Parse(frame)
		if err != nil || got != p {
			t.Errorf("%+v came back as %+v, %v", p, got, err)
		}
		if !Verify(frame, key) || Verify(frame, Key{1, 2, 4}) {
			t.Errorf("site %s: verifies with its key %t, with another %t", site, Verify(frame, key), Verify(frame, Key{1, 2, 4}))
		}
		end := etherLen + headerLen + len(site) + tagLen
		for i := range end {
			if _, err := Parse(frame[:i]); err == nil {
				t.Errorf("cut at %d it is a probe", i)
			}
			if i < etherLen { // the addresses are not signed: a bridge may not, but an attacker could, change them
				continue
			}
			bad := bytes.Clone(frame)
			bad[i] ^= 1
			if _, err := Parse(bad); err == nil && Verify(bad, key) {
				t.Errorf("byte %d changed, and it verifies", i)
			}
		}
	}
	if _, err := Parse(make([]byte, 60)); !errors.Is(err, ErrOther) {
		t.Errorf("another frame: %v", err)
	}
}

// FuzzParse: nothing panics, and what verifies is what would be written.
func FuzzParse(f *testing.F) {
	f.Add(sample.Append(nil, key))
	f.Add(Probe{Site: strings.Repeat("x", maxSite), VNI: 1<<24 - 1}.Append(nil, key))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil || !Verify(b, key) {
			return
		}
		end := etherLen + headerLen + len(p.Site) + tagLen
		if again := p.Append(nil, key); !bytes.Equal(again[:end], b[:end]) {
			t.Errorf("%x is written %x", b, again)
		}
	})
}
