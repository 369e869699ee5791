package announce

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite testdata")

var vm = MAC{0x52, 0x54, 0, 0, 0, 9}

// samples are messages as gateways send them, one of each kind and shape.
var samples = []struct {
	name string
	m    Message
}{
	{"learned", Message{Kind: Update, VNI: 100, Records: []Record{{MAC: vm, Cause: Learned, Seq: 1, Site: "a"}}}},
	{"flip", Message{Kind: Update, VNI: 100, Records: []Record{
		{MAC: vm, Cause: Moved, Seq: 42, Site: "site-b", Job: "0123456789abcdef0123456789abcdef",
			IPs: []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fe80::5054:ff:fe00:9")}},
		{MAC: MAC{2, 0, 0, 0, 0, 1}, Cause: Withdrawn, Seq: 1<<64 - 1, Site: strings.Repeat("s", MaxSite), Job: strings.Repeat("j", MaxJob)},
	}}},
	{"none", Message{Kind: Update, VNI: 1}},
	{"digest", Message{Kind: Digest, VNI: maxVNI, Count: 65536, Sum: 0xdeadbeef00112233}},
	{"request", Message{Kind: Request, VNI: 100}},
	{"prepare", Message{Kind: Prepare, VNI: 100, Job: "j1", Site: "b", MACs: []MAC{vm, {2, 0, 0, 0, 0, 1}}}},
	{"router", Message{Kind: Update, VNI: 100, Records: []Record{{MAC: vm, Cause: Learned, Router: true, Seq: 1, Site: "a"}}}},
	{"clear", Message{Kind: Clear, VNI: 100, MACs: []MAC{vm, {2, 0, 0, 0, 0, 1}}}},
	{"arrived", Message{Kind: Arrived, VNI: 100, Job: "j1", After: 62 * time.Millisecond, Held: 60, Lost: 1}},
	{"key", Message{Kind: Key, VNI: 100, Key: [KeyLen]byte{1, 2, 31: 3}, Time: 1_764_176_400_000_000_001, Bridge: vm}},
	{"loop", Message{Kind: Loop, VNI: 100, Site: "site-b"}},
	{"frozen", Message{Kind: Frozen, VNI: 100, MACs: []MAC{vm}}},
	{"nothing frozen", Message{Kind: Frozen, VNI: 100}},
	{"cable", Message{Kind: Cable, VNI: 100, Site: "site-b", Nonce: 0x1122334455667788}},
	{"secure", Message{Kind: Way, VNI: 100, Mode: "secure"}},
	{"direct", Message{Kind: Way, VNI: 100, Mode: "direct", Addr: netip.MustParseAddr("10.1.0.2")}},
	{"direct6", Message{Kind: Way, VNI: 100, Mode: "direct", Addr: netip.MustParseAddr("fd00:1::2")}},
	{"able", Message{Kind: Able, VNI: 100, Abilities: 0x80000000 | AbleStreams}},
	{"trip", Message{Kind: Trip, VNI: 100, Site: "b", RTT: 40123 * time.Microsecond}},
	{"members", Message{Kind: Members, VNI: 100, Groups: []MAC{{1, 0, 0x5e, 1, 2, 3}, {0x33, 0x33, 0, 1, 2, 3}}, IGMP: true, MLD: true, More: true}},
	{"no members", Message{Kind: Members, VNI: 100}},
	{"over", Message{Kind: Over, VNI: 100, Job: "j1"}},
	{"terms", Message{Kind: Terms, VNI: 100, Terms: []Term{{"home", ""}, {"mtu", "1500"}}}},
	{"no terms", Message{Kind: Terms, VNI: 100}},
	{"express", Message{Kind: Express, VNI: 100, Root: 7, Epoch: 3, Index: 0xa1b2c3d4, UDP: true}},
}

const vectors = "testdata/messages.hex"

// TestVectors compares each sample with the bytes that both ends agree on.
func TestVectors(t *testing.T) {
	var now strings.Builder
	for _, s := range samples {
		b, err := s.m.Append(nil)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		now.WriteString(s.name + " " + hex.EncodeToString(b) + "\n")
	}
	if *update {
		if err := os.WriteFile(vectors, []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectors)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), now.String()); d != "" {
		t.Errorf("the format has changed:\n%s", d)
	}
}

func TestParse(t *testing.T) {
	for _, s := range samples {
		b, err := s.m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(b)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if d := cmp.Diff(s.m, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s: %s", s.name, d)
		}
		for i := range b {
			if _, err := Parse(b[:i]); !errors.Is(err, ErrShort) {
				t.Errorf("%s cut at %d: %v", s.name, i, err)
			}
		}
		if _, err := Parse(append(b, 0)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s with a byte more: %v", s.name, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	good := Record{MAC: vm, Cause: Learned, Seq: 1, Site: "a"}
	with := func(change func(*Record)) Message {
		r := good
		change(&r)
		return Message{Kind: Update, VNI: 100, Records: []Record{r}}
	}
	members := func(groups ...MAC) Message { return Message{Kind: Members, VNI: 100, Groups: groups} }
	terms := func(ts ...Term) Message { return Message{Kind: Terms, VNI: 100, Terms: ts} }
	for _, tt := range []struct {
		name string
		m    Message
	}{
		{"multicast", with(func(r *Record) { r.MAC[0] |= 1 })},
		{"zero MAC", with(func(r *Record) { r.MAC = MAC{} })},
		{"no site", with(func(r *Record) { r.Site = "" })},
		{"long site", with(func(r *Record) { r.Site = strings.Repeat("s", MaxSite+1) })},
		{"long job", with(func(r *Record) { r.Job = strings.Repeat("s", MaxJob+1) })},
		{"cause 0", with(func(r *Record) { r.Cause = 0 })},
		{"cause 4", with(func(r *Record) { r.Cause = 4 })},
		{"many addresses", with(func(r *Record) { r.IPs = make([]netip.Addr, MaxIPs+1) })},
		{"no address", with(func(r *Record) { r.IPs = []netip.Addr{{}} })},
		{"multicast address", with(func(r *Record) { r.IPs = []netip.Addr{netip.MustParseAddr("ff02::1")} })},
		{"VNI 0", Message{Kind: Request}},
		{"big VNI", Message{Kind: Request, VNI: maxVNI + 1}},
		{"kind 0", Message{VNI: 100}},
		{"many records", Message{Kind: Update, VNI: 100, Records: make([]Record, MaxRecords+1)}},
		{"many MACs", Message{Kind: Prepare, VNI: 100, Site: "b", MACs: make([]MAC, MaxMACs+1)}},
		{"many frozen", Message{Kind: Frozen, VNI: 100, MACs: make([]MAC, MaxMACs+1)}},
		{"many cleared", Message{Kind: Clear, VNI: 100, MACs: make([]MAC, MaxMACs+1)}},
		{"clear multicast", Message{Kind: Clear, VNI: 100, MACs: []MAC{{1}}}},
		{"arrived early", Message{Kind: Arrived, VNI: 100, After: -1}},
		{"arrived with a long job", Message{Kind: Arrived, VNI: 100, Job: strings.Repeat("j", MaxJob+1)}},
		{"a long job is over", Message{Kind: Over, VNI: 100, Job: strings.Repeat("j", MaxJob+1)}},
		{"many terms", terms(make([]Term, MaxTerms+1)...)},
		{"terms out of order", terms(Term{"mtu", "1500"}, Term{"home", "a"})},
		{"a term twice", terms(Term{"mtu", "1500"}, Term{"mtu", "1500"})},
		{"a term without a name", terms(Term{"", "1500"})},
		{"a term that clears the screen", terms(Term{"home", "\x1b[2J"})},
		{"a long term", terms(Term{"home", strings.Repeat("h", 256)})},
		{"many groups", Message{Kind: Members, VNI: 100, Groups: make([]MAC, MaxGroups+1)}},
		{"a host as a group", members(vm)},
		{"broadcast as a group", members(MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})},
		{"no IP as a group", members(MAC{1, 0x80, 0xc2, 0, 0, 0})},
		{"MPLS as a group", members(MAC{1, 0, 0x5e, 0x80, 1, 1})},
		{"IPv4 of the link", members(MAC{1, 0, 0x5e, 0, 0, 0xfb})},
		{"only groups of IPv4", members(MAC{1, 0, 0x5e})},
		{"all nodes", members(MAC{0x33, 0x33, 0, 0, 0, 1})},
		{"all DHCP servers", members(MAC{0x33, 0x33, 0, 1, 0, 2})},
		{"solicited node", members(MAC{0x33, 0x33, 0xff, 1, 2, 3})},
		{"a good group and a bad", members(MAC{1, 0, 0x5e, 1, 2, 3}, MAC{0x33, 0x33, 0, 0, 0, 2})},
		{"prepare multicast", Message{Kind: Prepare, VNI: 100, Site: "b", MACs: []MAC{{1}}}},
	} {
		if _, err := tt.m.Append(nil); !errors.Is(err, ErrFormat) {
			t.Errorf("%s is written: %v", tt.name, err)
		}
	}
	b, _ := Message{Kind: Update, VNI: 100, Records: []Record{good}}.Append(nil)
	for _, tt := range []struct {
		name string
		at   int
		to   byte
	}{
		{"magic", 0, 'X'}, {"version", 2, 1}, {"kind", 3, 9}, {"VNI", 4, 1}, {"count", 8, 0xff}, {"MAC", 10, 0x53}, {"cause", 16, 0}, {"flags", 17, 2},
	} {
		bad := bytes.Clone(b)
		bad[tt.at] = tt.to
		if m, err := Parse(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", tt.name, m, err)
		}
	}
	b, err := members(MAC{1, 0, 0x5e, 1, 2, 3}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[len(b)-6:], "\xff\xff\xff\xff\xff\xff")
	if m, err := Parse(b); !errors.Is(err, ErrFormat) {
		t.Errorf("broadcast as a group: %+v, %v", m, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range samples {
		b, err := s.m.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		again, err := m.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x parses, but is written %x, %v", b, again, err)
		}
	})
}
