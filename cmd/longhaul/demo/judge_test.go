package demo

import (
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
)

// good is the document of a demo that went well.
func good() Document {
	f := Figures{
		Total: 4000, Downtime: 200, PingsSent: 700, PingsLost: 22, SessionAlive: true, SameIP: true, SameMAC: true,
		PagesVerified: 30000, Wire: 70 << 20,
	}
	plain := f
	plain.Total, plain.Downtime, plain.Wire = 8000, 200, 210<<20
	held := map[string]pair.Held{"a": {Resident: 1 << 30, Files: 40, Goroutines: 200, FDB: 20}}
	return Document{
		Longhaul: &f, Plain: &plain, Moves: []Move{{Downtime: 200}},
		Drift: &Drift{First: held, Last: map[string]pair.Held{"a": held["a"]}},
	}
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(*Document)
		unlike string // part of the problem; empty means that there is none
	}{
		{"as promised", func(*Document) {}, ""},
		{"without plain QEMU", func(d *Document) { d.Plain = nil }, ""},
		{"without drift", func(d *Document) { d.Drift = nil }, ""},
		{"no move", func(d *Document) { d.Longhaul = nil }, "no move"},
		{"a move is missing", func(d *Document) { d.Moves = nil }, "0 moves of 1"},
		{"a page is wrong", func(d *Document) { d.Longhaul.PagesWrong = 1 }, "1 of 30000 pages"},
		{"a block is wrong", func(d *Document) { d.Longhaul.BlocksWrong = 1 }, "1 blocks"},
		{"nothing was checked", func(d *Document) { d.Longhaul.PagesVerified = 0 }, "0 of 0 pages"},
		{"session broken", func(d *Document) { d.Longhaul.SessionAlive = false }, "session alive false"},
		{"other IP", func(d *Document) { d.Longhaul.SameIP = false }, "same IP false"},
		{"other MAC", func(d *Document) { d.Longhaul.SameMAC = false }, "same MAC false"},
		{"second copy", func(d *Document) { d.Longhaul.ForeignBeats = 1 }, "second copy"},
		{"a ping more than the pause explains", func(d *Document) { d.Longhaul.PingsLost = 23 }, "23 pings lost"},
		{"too many bytes", func(d *Document) { d.Longhaul.Wire++ }, "not better than plain QEMU"},
		{"too slow", func(d *Document) { d.Longhaul.Total++ }, "not better than plain QEMU"},
		{"longer downtime", func(d *Document) { d.Longhaul.Downtime++ }, "not better than plain QEMU"},
		{"goroutines leak", func(d *Document) { d.Drift.Last["a"] = pair.Held{Goroutines: 1000} }, "holds more and more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := good()
			tt.spoil(&d)
			d.judge(1)
			got := strings.Join(d.Problems, "; ")
			if d.OK != (tt.unlike == "") || !strings.Contains(got, tt.unlike) {
				t.Errorf("ok %v, problems %q; want one with %q", d.OK, got, tt.unlike)
			}
		})
	}
}
