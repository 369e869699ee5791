package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/bench/reduction"
	"github.com/longhaul-project/longhaul/bench/streams"
)

func TestPrint(t *testing.T) {
	tab := table{
		Place: describe(t.Context()), Recorded: []streams.Stream{{Name: "deb1", Rounds: 3}},
		Report: reduction.Report{Rows: []reduction.Row{{Case: "cold", Method: "lz4", Raw: 1000, Left: 250}}},
	}
	var text strings.Builder
	if err := tab.print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# commit ", "load ", "# deb1: recorded", "25.000"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	tab.json = true
	text.Reset()
	if err := tab.print(&text); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Place    string
		Recorded []struct{ Name string }
		Rows     []struct {
			Case string
			Left int64 `json:"left_bytes"`
		}
	}
	if err := json.Unmarshal([]byte(text.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Place != tab.Place || len(got.Recorded) != 1 || len(got.Rows) != 1 || got.Rows[0].Left != 250 {
		t.Errorf("got %+v", got)
	}
}
