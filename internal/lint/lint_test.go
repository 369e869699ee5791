package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/longhaul-project/longhaul/"

// may says which of our packages a package may import; the first prefix that
// fits decides. A package may always import what lies below it and, in the
// same top-level part, its formats.
var may = []struct {
	pkg     string
	imports []string
}{
	{"cmd/", []string{""}},
	{"gateway/hvtest", []string{"gateway", "internal/"}},
	{"gateway/", []string{"gateway", "internal/"}},
	{"gateway", []string{"dedup", "dedup/store", "tunnel", "l2ext", "internal/page", "internal/ordered"}},
	{"dedup/fold", nil},
	{"dedup/press", nil},
	{"dedup/record", nil},
	{"dedup/store", nil},
	{"dedup", []string{"dedup/", "internal/page"}},
	{"tunnel/frame", nil},
	{"tunnel/shaper", nil},
	{"tunnel/congestion", nil},
	{"tunnel", []string{"tunnel/", "internal/page", "internal/bell"}},
	{"l2ext/vxlan", nil},
	{"l2ext/announce", nil},
	{"l2ext/probe", nil},
	{"l2ext/pcap", nil},
	{"l2ext/stream", nil},
	{"l2ext/fast", nil},
	{"l2ext", []string{"l2ext", "internal/page", "internal/bell", "internal/loglimit"}},
	{"internal/testwan", nil},
	{"internal/qemu", []string{"gateway", "internal/"}}, // hypervisor adaptors fill the gateway's interfaces
	{"internal/", []string{"internal/"}},
	{"bench/", []string{"bench/", "internal/", "gateway", "tunnel", "l2ext", "dedup"}},
	{"deploy", []string{"cmd/", "internal/"}},
}

// formats import the standard library only.
var formats = []string{"dedup/press", "dedup/record", "tunnel/frame", "l2ext/vxlan", "l2ext/announce", "l2ext/probe", "l2ext/pcap", "l2ext/stream", "l2ext/fast", "internal/page"}

// doors says which packages may import a library. A test may also use one to
// stand on the other side of a door.
var doors = map[string][]string{
	"github.com/quic-go/quic-go":          {"tunnel", "internal/testwan", "bench/wan"}, // with our own module tunnel/congestion/ccslot, by its name; the bench compares with it as it comes
	"github.com/vishvananda/netlink":      {"l2ext/hostnet", "internal/nstest", "bench/lab"},
	"github.com/vishvananda/netns":        {"l2ext/hostnet", "internal/nstest", "bench/lab"},
	"github.com/google/nftables":          {"l2ext/hostnet"},
	"github.com/hashicorp/memberlist":     {"gateway/cluster"},
	"github.com/klauspost/compress":       {"dedup", "cmd/longhaul/inspect", "bench/reduction", "internal/image/qcow2", "internal/qemu/vmstream/payload"}, // inspect and the bench compare with whole streams
	"github.com/pierrec/lz4":              {"dedup", "cmd/longhaul/inspect", "bench/reduction"},
	"github.com/cespare/xxhash":           {"dedup", "dedup/store", "cmd/longhaul/inspect"},
	"github.com/danielgtaylor/huma":       {"gateway/api"},
	"github.com/prometheus/client_golang": {"gateway/api", "gateway/metrics", "cmd/longhauld"},
	"github.com/spf13/cobra":              {"cmd"},
	"github.com/spf13/pflag":              {"cmd"},
	"github.com/goccy/go-yaml":            {"internal/conffile"},
	"go.etcd.io/bbolt":                    {"gateway"},
	"golang.org/x/sync":                   {""},
	"golang.org/x/sys":                    {""},
	"golang.org/x/net":                    {"tunnel", "internal/testwan", "l2ext", "bench"},
	"golang.org/x/term":                   {"cmd"},
	"go.uber.org/goleak":                  {""},
	"pgregory.net/rapid":                  {""},
	"github.com/google/go-cmp":            {""},
	"github.com/rogpeppe/go-internal":     {"cmd"},
}

type pkg struct {
	ImportPath, Dir                             string
	Imports, TestImports, XTestImports, GoFiles []string
	TestGoFiles, XTestGoFiles, IgnoredGoFiles   []string
}

func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

// packages lists the module, for the machine that runs the tests.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles,IgnoredGoFiles", "./...")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func under(pkg, prefix string) bool {
	if prefix == "" || pkg == strings.TrimSuffix(prefix, "/") {
		return true
	}
	return strings.HasPrefix(pkg, strings.TrimSuffix(prefix, "/")+"/")
}

// permitted tells whether one of our packages may import another.
func permitted(from, to string) bool {
	for _, rule := range may {
		fits := under(from, rule.pkg)
		if strings.HasSuffix(rule.pkg, "/") {
			fits = strings.HasPrefix(from, rule.pkg)
		}
		if !fits {
			continue
		}
		return slices.ContainsFunc(rule.imports, func(p string) bool { return under(to, p) })
	}
	return false
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			switch {
			case ours && !permitted(p.name(), to):
				t.Errorf("%s imports %s: the house does not allow it (see may, and DESIGN)", p.name(), to)
			case ours, !strings.Contains(strings.Split(imp, "/")[0], "."):
			case slices.Contains(formats, p.name()):
				t.Errorf("%s is a format and imports %s: the standard library only", p.name(), imp)
			default:
				checkDoor(t, p.name(), imp)
			}
		}
		if strings.HasPrefix(p.name(), "bench/") {
			continue
		}
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if to, ours := strings.CutPrefix(imp, module); ours && under(to, "bench") && !under(p.name(), "cmd/longhaul") {
				t.Errorf("%s imports %s: nobody but cmd/longhaul imports bench", p.name(), to)
			}
		}
	}
}

func checkDoor(t *testing.T, from, imp string) {
	t.Helper()
	for lib, allowed := range doors {
		if imp != lib && !strings.HasPrefix(imp, lib+"/") {
			continue
		}
		if !slices.ContainsFunc(allowed, func(p string) bool { return under(from, p) }) {
			t.Errorf("%s imports %s, whose door is %v", from, imp, allowed)
		}
		return
	}
	t.Errorf("%s imports %s, which has no door (see doors)", from, imp)
}

// sources walks the Go files of the repository.
func sources(t *testing.T, visit func(path string, src []byte, f *ast.File, fset *token.FileSet)) {
	t.Helper()
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != "." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		visit(path, src, f, fset)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFormatted(t *testing.T) {
	sources(t, func(path string, src []byte, _ *ast.File, _ *token.FileSet) {
		want, err := format.Source(src)
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(src, want) {
			t.Errorf("%s is not formatted: gofmt -w %s", path, path)
		}
	})
}

func TestFileSize(t *testing.T) {
	const limit = 500 // lines
	sources(t, func(path string, src []byte, _ *ast.File, _ *token.FileSet) {
		if n := bytes.Count(src, []byte("\n")); n > limit {
			t.Errorf("%s has %d lines, over %d: split it by step", path, n, limit)
		}
	})
}

func TestNoInit(t *testing.T) {
	sources(t, func(path string, _ []byte, f *ast.File, fset *token.FileSet) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init: wire things in cmd", fset.Position(fn.Pos()))
			}
		}
	})
}

// unsafes are the files that may import unsafe, with the most lines that each may have.
var unsafes = map[string]int{
	"tunnel/congestion/ccslot/slot.go": 150, // sets unexported fields of quic-go
	"bench/wanem/tap_linux.go":         500, // system calls that x/sys does not have
	"l2ext/hostnet/snoop_linux.go":     500, // the address of a packet filter, for the kernel
	"bench/layer2/generator_linux.go":  150, // bpf(2), which x/sys does not have
	"internal/nstest/tag_linux.go":     150, // likewise
}

func TestUnsafe(t *testing.T) {
	sources(t, func(path string, src []byte, f *ast.File, _ *token.FileSet) {
		rel, _ := filepath.Rel(root(t), path)
		most, ok := unsafes[filepath.ToSlash(rel)]
		for _, imp := range f.Imports {
			switch n := bytes.Count(src, []byte("\n")); {
			case imp.Path.Value != `"unsafe"` || strings.HasSuffix(path, "_test.go"):
			case !ok:
				t.Errorf("%s imports unsafe (see unsafes)", rel)
			case n > most:
				t.Errorf("%s imports unsafe and has %d lines, over %d", rel, n, most)
			}
		}
	})
}

func TestNoPanicInFormats(t *testing.T) {
	sources(t, func(path string, _ []byte, f *ast.File, fset *token.FileSet) {
		rel, _ := filepath.Rel(root(t), filepath.Dir(path))
		if !slices.Contains(formats, filepath.ToSlash(rel)) || strings.HasSuffix(path, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
					t.Errorf("%s: a format panics; bytes from outside can only cause errors", fset.Position(call.Pos()))
				}
			}
			return true
		})
	})
}

func TestPackageComments(t *testing.T) {
	commented := map[string]bool{}
	sources(t, func(path string, _ []byte, f *ast.File, _ *token.FileSet) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		commented[dir] = commented[dir] || f.Doc != nil
	})
	for dir, ok := range commented {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}

func TestExportedNamesDocumented(t *testing.T) {
	sources(t, func(path string, _ []byte, f *ast.File, fset *token.FileSet) {
		if strings.HasSuffix(path, "_test.go") || f.Name.Name == "main" {
			return
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s has no comment", fset.Position(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				checkSpecs(t, fset, d)
			}
		}
	})
}

// exportedReceiver tells whether a function is visible outside: methods that
// fill a well-known interface on an unexported type are not.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch gen := typ.(type) {
	case *ast.IndexExpr:
		typ = gen.X
	case *ast.IndexListExpr:
		typ = gen.X
	}
	id, ok := typ.(*ast.Ident)
	return !ok || id.IsExported() && !wellKnown[d.Name.Name]
}

// wellKnown methods mean the same everywhere, so a comment would only repeat
// their interface's.
var wellKnown = map[string]bool{
	"Error": true, "Unwrap": true, "String": true, "Is": true, "Read": true, "Write": true, "Close": true,
	"Len": true, "Less": true, "Swap": true, "Set": true, "Type": true,
	"MarshalText": true, "UnmarshalText": true, "MarshalJSON": true, "UnmarshalJSON": true,
	"LocalAddr": true, "RemoteAddr": true, "SetDeadline": true, "SetReadDeadline": true, "SetWriteDeadline": true,
}

func checkSpecs(t *testing.T, fset *token.FileSet, d *ast.GenDecl) {
	t.Helper()
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
				t.Errorf("%s: type %s has no comment", fset.Position(s.Pos()), s.Name.Name)
			}
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					t.Errorf("%s: %s has no comment", fset.Position(n.Pos()), n.Name)
				}
			}
		}
	}
}
