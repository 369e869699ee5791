package launch

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func values() Values {
	return Values{
		Name: "db1", UUID: "7d0f9a52-31a5-4f5e-9c0e-5d1d2b6e8a10", Memory: 1 << 30,
		Token: "0123456789abcdef0123456789abcdef", QMP: "/run/q",
	}
}

func TestExpand(t *testing.T) {
	got, err := Expand([]string{"/bin/vm", "--name={name}", "{uuid}", "{memory_bytes}", "{token}/{qmp}", "{incoming}", "{other} x"}, values())
	want := []string{
		"/bin/vm", "--name=db1", "7d0f9a52-31a5-4f5e-9c0e-5d1d2b6e8a10", "1073741824",
		"0123456789abcdef0123456789abcdef//run/q", "defer", "{other} x",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}
}

func TestValuesAreChecked(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Values)
	}{
		{"no name", func(v *Values) { v.Name = "" }},
		{"a path", func(v *Values) { v.Name = "../x" }},
		{"an option", func(v *Values) { v.Name = "-S" }},
		{"a comma", func(v *Values) { v.Name = "a,file=/etc/shadow" }},
		{"a line", func(v *Values) { v.Name = "a\nb" }},
		{"a space", func(v *Values) { v.Name = "a b" }},
		{"a shell's word", func(v *Values) { v.Name = "a$(b)" }},
		{"not ascii", func(v *Values) { v.Name = "dbé" }},
		{"long", func(v *Values) { v.Name = strings.Repeat("a", maxName+1) }},
		{"uuid", func(v *Values) { v.UUID = "{name}" }},
		{"short uuid", func(v *Values) { v.UUID = "7d0f9a52-31a5-4f5e-9c0e" }},
		{"token", func(v *Values) { v.Token = "../../x" }},
		{"token in capitals", func(v *Values) { v.Token = strings.ToUpper(v.Token) }},
		{"memory", func(v *Values) { v.Memory = 0 }},
	} {
		v := values()
		c.change(&v)
		if got, err := Expand([]string{"/bin/vm", "{name}"}, v); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %q, error %v", c.name, got, err)
		}
	}
	if _, err := Expand(nil, values()); !errors.Is(err, ErrRefused) {
		t.Errorf("empty template: %v", err)
	}
	for _, name := range []string{"a", "vm-101", "web@2", "db.example.org", "A_1+b:c"} {
		v := values()
		v.Name = name
		if err := v.Check(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}
