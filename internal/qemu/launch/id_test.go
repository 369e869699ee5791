package launch

import (
	"os"
	"strings"
	"testing"
)

func TestID(t *testing.T) {
	p := Process{PID: 4711, Start: 123456}
	got, err := ParseID(p.ID())
	if got != p || err != nil {
		t.Errorf("%s: %+v, %v", p.ID(), got, err)
	}
	if id := (Process{}).ID(); id != "" {
		t.Errorf("no process has the identity %q", id)
	}
	if before, err := ParseID("4711 123456 of-an-earlier-run"); before != (Process{}) || err != nil {
		t.Errorf("of an earlier run of the machine: %+v, %v", before, err)
	}
	for _, bad := range []string{"", "4711", "4711 1", "0 1 x", "-1 1 x", "99999999999 1 x", "1 -1 x", "1 2 3 4", " 1 2", strings.Repeat("9", 100) + " 1 x"} {
		if p, err := ParseID(bad); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(Process{PID: os.Getpid(), Start: 1}.ID())
	f.Add("1 2 3")
	f.Fuzz(func(t *testing.T, id string) {
		p, err := ParseID(id)
		if err != nil || p == (Process{}) {
			return
		}
		if again, err := ParseID(p.ID()); again != p || err != nil {
			t.Errorf("%q: %+v, then %+v, %v", id, p, again, err)
		}
	})
}
