package gateway

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// What cannot tell whether it has changed goes on for a day where it was cut, and is read anew
// otherwise; what can tell goes on at any time.
func TestSeenKnown(t *testing.T) {
	now := time.Now()
	timed := ImageFile{Name: "x", Size: 9, Changed: now.Add(-time.Hour), Touched: now.Add(-time.Hour)}
	shelf := &shelf{ids: []uint64{1, 2}, births: []uint64{5, 6}}
	for _, c := range []struct {
		name string
		f    ImageFile
		age  time.Duration
		done int64
		want bool
	}{
		{"in part", timed, 1000 * time.Hour, 4, true},
		{"whole", timed, 1000 * time.Hour, 8, true},
		{"nothing", timed, time.Hour, 0, false},
		{"without times, in part", ImageFile{Name: "x"}, resumeFor - time.Minute, 4, true},
		{"without times, too long ago", ImageFile{Name: "x"}, resumeFor + time.Minute, 4, false},
		{"without times, noted in the future", ImageFile{Name: "x"}, -time.Minute, 4, false},
		{"without times, whole", ImageFile{Name: "x"}, time.Minute, 8, false},
	} {
		m := &seenImages{all: map[string]seenFile{}}
		was := seenFile{Size: c.f.Size, Changed: c.f.Changed, Touched: c.f.Touched, Noted: now.Add(-c.age), Disk: 8, Done: c.done, Segments: []span{{1, 2, 5 ^ 6}}}
		m.note("x", was)
		if _, ok := m.known(c.f, shelf); ok != c.want {
			t.Errorf("%s: known is %v", c.name, ok)
		}
		was.Segments[0][2]++
		if m.note("x", was); c.want {
			if _, ok := m.known(c.f, shelf); ok {
				t.Errorf("%s: known though its segments are others", c.name)
			}
		}
	}
}

// Segments that are not there are counted, whatever the notes say of them, and count as lost as far as
// the pool has room for them.
func TestShelf(t *testing.T) {
	const most = ^uint64(0)
	s := &shelf{ids: []uint64{2, 3, 4, 9}, births: []uint64{10, 20, 30, 40}}
	all := map[uint64]bool{2: true, 3: true, 4: true, 9: true}
	if got := s.spans(all); !slices.Equal(got, []span{{2, 4, 10 ^ 20 ^ 30}, {9, 9, 40}}) || !s.has(got) {
		t.Errorf("spans are %v", got)
	}
	for _, c := range []struct {
		of      span
		missing uint64
	}{
		{span{2, 4, 10 ^ 20 ^ 30}, 0}, {span{2, 4, 7}, 3}, {span{3, 3, 20}, 0}, {span{4, 9, 0}, 4}, {span{5, 8, 0}, 4},
		{span{10, 11, 0}, 2}, {span{4, 2, 0}, maxSeen * maxSeen}, {span{0, most, 0}, maxSeen * maxSeen}, {span{1, most, 0}, maxSeen * maxSeen},
	} {
		if got := s.missing(c.of); got != c.missing {
			t.Errorf("of %v %d are missing, want %d", c.of, got, c.missing)
		}
		got := map[uint64]bool{}
		s.list([]span{c.of}, got)
		for id := range got {
			if id < c.of[0] || id > c.of[1] || !all[id] {
				t.Errorf("%v has segments %v", c.of, slices.Sorted(maps.Keys(got)))
			}
		}
	}
	for _, c := range []struct {
		all        []span
		room, left uint64
		lost       bool
	}{
		{[]span{{2, 2, 10}}, 10, 10, false},
		{[]span{{5, 8, 0}}, 10, 6, true},
		{[]span{{5, 8, 0}}, 4, 4, false}, // made room
		{[]span{{5, 8, 0}}, 0, 0, false},
		{[]span{{0, most, 0}, {0, most, 0}}, 10, 10, false},
	} {
		if got := s.lost(c.all, &c.room); got != c.lost || c.room != c.left {
			t.Errorf("%v: lost is %v, room for %d left, want %v and %d", c.all, got, c.room, c.lost, c.left)
		}
	}
}

// No more is remembered than there is room for, and what was noted longest ago goes.
func TestSeenTrim(t *testing.T) {
	m := &seenImages{all: map[string]seenFile{}}
	for i := range 100 {
		m.note(fmt.Sprint(i), seenFile{Noted: time.Unix(int64(i+7)%100, 0)})
	}
	m.trim(98)
	_, one := m.get("93")
	_, two := m.get("94")
	if len(m.all) != 98 || one || two {
		t.Errorf("%d are left, those of the first seconds: %v, %v", len(m.all), one, two)
	}
}
