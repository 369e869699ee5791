package conffile

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type host struct {
	Name    string          `yaml:"name"`
	Memory  Size            `yaml:"memory"`
	Sizes   []Size          `yaml:"sizes"`
	Caps    map[string]Rate `yaml:"caps"`
	Patient *Duration       `yaml:"patience"`
}

type common struct {
	Log string `yaml:"log"`
	Cap Rate   `yaml:"cap"`
}

type config struct {
	Site   string         `yaml:"site"`
	Listen netip.AddrPort `yaml:"listen"`
	Rate   Rate           `yaml:"rate"`
	Conns  int8           `yaml:"conns"`
	On     bool           `yaml:"on"`
	Hosts  []host         `yaml:"hosts"`
	Inner  common         `yaml:",inline"`
	Plain  uint
}

func (c *config) Validate() error {
	var errs []error
	for i, h := range c.Hosts {
		if strings.HasPrefix(h.Name, "bad") {
			errs = append(errs, At("hosts["+string(rune('0'+i))+"].name", errors.New("is bad")))
		}
		if h.Name == "lacking" {
			errs = append(errs, At("hosts["+string(rune('0'+i))+"].memory", errors.New("is lacking")))
		}
	}
	if c.Site == "nowhere" {
		errs = append(errs, errors.New("something without a place"))
	}
	return errors.Join(errs...)
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gw.yaml")
	text := `# a comment
site: a
listen: "192.0.2.1:7441"
rate: 1.5Gbit
plain: 7
log: debug
cap: 25MB/s
hosts:
  - name: h1
    memory: 512MiB
    sizes: [1kB, 4096]
    caps: {x: 10Mbit/s}
    patience: 10m
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := config{Conns: 3} // kept
	if err := Load(path, &got); err != nil {
		t.Fatal(err)
	}
	patience := Duration(10 * time.Minute)
	want := config{Site: "a", Listen: netip.MustParseAddrPort("192.0.2.1:7441"), Rate: 1.5e9, Conns: 3, Plain: 7,
		Inner: common{Log: "debug", Cap: 200e6},
		Hosts: []host{{"h1", 512 << 20, []Size{1000, 4096}, map[string]Rate{"x": 10e6}, &patience}}}
	if d := cmp.Diff(got, want, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if err := Load(path+"x", &got); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}

func TestEmpty(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "null\n", "\uFEFFsite: a\n"} {
		c := config{Site: "a"}
		if err := Parse("f", []byte(text), &c); err != nil || c.Site != "a" {
			t.Errorf("%q: %v, site %q", text, err, c.Site)
		}
	}
}

// TestErrors: every error names file, line, column and key, if there is one.
func TestErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"site: a\nhost:\n- x\n", "f:2:1: host: unknown key"},
		{"Site: a\n", "f:1:1: Site: unknown key"},
		{"hosts:\n- name: x\n  nme: y\n", "f:3:3: hosts[0].nme: unknown key"},
		{"hosts: [{name: x, nme: y}]\n", "f:1:19: hosts[0].nme: unknown key"},
		{"site: a\nsite: b\n", `f:2:1: mapping key "site" already defined at [1:1]`},
		{"hosts:\n- name: x\n  name: y\n", `f:3:3: mapping key "name" already defined at [2:3]`},
		{"conns: many\n", "f:1:8: conns: want a whole number, got \"many\""},
		{"conns: '3'\n", "f:1:8: conns: want a whole number, got \"3\""},
		{"conns: 300\n", "f:1:8: conns: number 300 is too large"},
		{"conns: 1.5\n", "f:1:8: conns: want a whole number, got \"1.5\""},
		{"plain: -1\n", "f:1:8: plain: number -1 is too large"},
		{"on: yes\n", "f:1:5: on: want true or false, got text"},
		{"site: [a]\n", "f:1:7: site: want text, got a list"},
		{"hosts: x\n", "f:1:8: hosts: want a list, got text"},
		{"- a\n", "f:1:1: want keys with values, got a list"},
		{"hello\n", "f:1:1: want keys with values, got text"},
		{"rate: 200\n", `f:1:7: rate: rate "200": has no unit (write it like 200Mbit)`},
		{"rate: 200Mbps\n", `f:1:7: rate: rate "200Mbps": unknown unit "Mbps" (write it like 200Mbit)`},
		{"cap: 5x\n", `f:1:6: cap: rate "5x": unknown unit "x" (write it like 200Mbit)`},
		{"site: a\nhosts:\n- name: x\n- memory: 1.5.5MiB\n", `f:4:11: hosts[1].memory: size "1.5.5MiB": want a number and a unit (write it like 512MiB)`},
		{"hosts:\n- sizes: [1kB, -4]\n", `f:2:16: hosts[0].sizes[1]: size "-4": is negative (write it like 512MiB)`},
		{"hosts:\n- caps:\n    x: 1\n", `f:3:8: hosts[0].caps.x: rate "1": has no unit (write it like 200Mbit)`},
		{"hosts:\n- patience: 10\n", `f:2:13: hosts[0].patience: duration "10": missing unit in duration "10" (write it like 10m or 1h30m)`},
		{"hosts:\n- patience: -1s\n", `f:2:13: hosts[0].patience: duration "-1s": is negative (write it like 10m or 1h30m)`},
		{"hosts: [{memory: {a: b}}]\n", "f:1:18: hosts[0].memory: want one value, got several"},
		{"listen: nonsense\n", "f:1:9: listen: not an ip:port"},
		{"site: \"a\n", "f:1:7: could not find end character of double-quoted text"},
		{"a: b: c\n", "f:1:4: mapping value is not allowed in this context"},
		{"site: &x a\n", `f:1:7: "&": anchors, aliases, merge keys, tags and directives are not used here`},
		{"site: *x\n", `f:1:7: "*": anchors, aliases, merge keys, tags and directives are not used here`},
		{"<<: {site: x}\n", `f:1:1: "<<": anchors, aliases, merge keys, tags and directives are not used here`},
		{"site: !!binary aGk=\n", `f:1:7: "!!binary": anchors, aliases, merge keys, tags and directives are not used here`},
		{"site: a\n---\nsite: b\n", "f:3:5: a second document; want one"},
		{"site: " + strings.Repeat("[", 100), "f:1:39: more than 32 brackets deep"},
		{strings.Repeat("- ", 4000), "f:1:4096: line has more than 4096 bytes"},
		{"a:" + strings.Repeat("\n", MaxSize), "f: has more than 1048576 bytes"},
		// What Validate says.
		{"hosts:\n- name: good\n- name: bad1\n- name: bad2\n", "f:3:3: hosts[1].name: is bad\nf:4:3: hosts[2].name: is bad"},
		{"hosts:\n- name: lacking\n", "f:2:3: hosts[0].memory: is lacking"},
		{"site: nowhere\n", "f: something without a place"},
	}
	for _, tt := range tests {
		var c config
		err := Parse("f", []byte(tt.text), &c)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%.60q:\n got %v\nwant %v", tt.text, err, tt.want)
		}
		var e *Error
		if !errors.As(err, &e) || e.File != "f" {
			t.Errorf("%.60q: %T", tt.text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("site: a\nlisten: \"192.0.2.1:7441\"\nrate: 1.5Gbit\nhosts:\n  - name: h1\n    memory: 512MiB\n    sizes: [1kB, 4096]\n    caps: {x: 10Mbit/s}\n    patience: 10m\n"))
	f.Add([]byte("hosts:\n- name: bad\n  memory: {a: b}\n"))
	f.Add([]byte("site: >-\n  a\n  b\n\"log\": 'x'\n? on\n: true\n"))
	f.Add([]byte("site: a\n---\nsite: b\n...\n"))
	f.Add([]byte("{site: \"\\u00e9\\x41\", hosts: [{}, {name: |+\n }], }\n"))
	f.Add([]byte("hosts:\n- name: !x y\n  ? [a]\n  : - b\n# c\n<<: *d\n\tlog: %e\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c config
		err := Parse("f", b, &c)
		if err == nil {
			return
		}
		var e *Error
		if !errors.As(err, &e) || e.File != "f" {
			t.Errorf("%T %v", err, err)
		}
	})
}
