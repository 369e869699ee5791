package l2ext

import (
	"strings"
	"testing"
)

func TestCheckSegment(t *testing.T) {
	good := Segment{Name: "prod", VNI: 100, Bridge: "br-prod.7", MTU: 1500, Sites: []string{"b"}}
	for _, tt := range []struct {
		name  string
		spoil func(*Segment)
		want  string // in the error; empty means that there is none
	}{
		{"good", func(*Segment) {}, ""},
		{"no name", func(s *Segment) { s.Name = "" }, "the name must have"},
		{"zero in the name", func(s *Segment) { s.Name = "\x00" }, "the name must have"},
		{"line feed in the name", func(s *Segment) { s.Name = "a\nb" }, "the name must have"},
		{"capital in the name", func(s *Segment) { s.Name = "Prod" }, "the name must have"},
		{"no bridge", func(s *Segment) { s.Bridge = "" }, "no name of a network device"},
		{"path as bridge", func(s *Segment) { s.Bridge = "../x" }, "no name of a network device"},
		{"dots as bridge", func(s *Segment) { s.Bridge = ".." }, "no name of a network device"},
		{"blank in the bridge", func(s *Segment) { s.Bridge = "br 0" }, "no name of a network device"},
		{"long bridge", func(s *Segment) { s.Bridge = strings.Repeat("b", 16) }, "no name of a network device"},
		{"no VNI", func(s *Segment) { s.VNI = 0 }, "VNI 0"},
		{"VNI of 25 bits", func(s *Segment) { s.VNI = 1 << 24 }, "VNI 16777216"},
		{"a VLAN", func(s *Segment) { s.VLAN = 4094 }, ""},
		{"reserved VLAN", func(s *Segment) { s.VLAN = 4095 }, "VLAN 4095 is not in 1..4094"},
		{"a VLAN in secure-fast", func(s *Segment) { s.VLAN, s.Mode = 1, SecureFast }, ""},
		{"a VLAN in direct", func(s *Segment) { s.VLAN, s.Mode = 1, Direct }, "mode direct cannot take VLAN 1 from bridge br-prod.7"},
		{"tiny MTU", func(s *Segment) { s.MTU = 575 }, "MTU 575"},
		{"huge MTU", func(s *Segment) { s.MTU = 9001 }, "MTU 9001"},
		{"its own site", func(s *Segment) { s.Sites = []string{"a"} }, "site a is this one"},
		{"streams", func(s *Segment) { s.Policy.Streams = StreamsOn }, ""},
		{"streams in direct", func(s *Segment) { s.Mode, s.Policy.Streams = Direct, StreamsOn }, "streams on needs mode secure: in mode direct no connection"},
		{"streams in secure-fast", func(s *Segment) { s.Mode, s.Policy.Streams = SecureFast, StreamsOn }, "streams on needs mode secure"},
		{"no streams in secure-fast", func(s *Segment) { s.Mode, s.Policy.Streams = SecureFast, StreamsOff }, ""},
		{"no site", func(s *Segment) { s.Sites = []string{""} }, "site \"\" must have"},
	} {
		s := good
		tt.spoil(&s)
		err := s.check("a")
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
	twice := good
	twice.Name = "second"
	if err := checkAll("a", []Segment{good, twice}); err == nil || !strings.Contains(err.Error(), "VNI 100 is used twice") ||
		!strings.Contains(err.Error(), "bridge br-prod.7 is used twice") {
		t.Errorf("the same VNI and bridge twice: %v", err)
	}
}

func TestOneBridge(t *testing.T) {
	on := func(vlan uint16, mode Mode) Segment { return Segment{Bridge: "br0", VLAN: vlan, Mode: mode} }
	for _, tt := range []struct {
		a, b Segment
		want string // in the error; empty means that there is none
	}{
		{on(0, ""), on(100, ""), ""},
		{on(200, Secure), on(100, ""), ""},
		{on(200, SecureFast), on(0, SecureFast), ""},
		{on(0, ""), Segment{Bridge: "br1"}, ""},
		{on(0, ""), on(0, ""), "bridge br0 is used twice"},
		{on(100, ""), on(100, ""), "VLAN 100 of bridge br0 is used twice"},
		{on(0, ""), on(100, SecureFast), "both must have mode secure"},
		{on(0, Direct), on(100, ""), "both must have mode secure"},
	} {
		for _, err := range []error{tt.a.besides(tt.b), tt.b.besides(tt.a)} {
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v and %+v: %v; want %q", tt.a, tt.b, err, tt.want)
			}
		}
	}
}
