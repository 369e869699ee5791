package lint

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// TestCommentsBeginWithTheName finds comments that a renaming has left behind.
// What a function, method or type is begins with its name, exported or not. A
// constant, a variable or a test may also have a whole sentence: it begins with a
// capital.
func TestCommentsBeginWithTheName(t *testing.T) {
	sources(t, func(_ string, _ []byte, f *ast.File, fset *token.FileSet) {
		for _, d := range declared(f) {
			if d.doc == nil || begins(d.doc.Text(), d.name, d.sentence) {
				continue
			}
			t.Errorf("%s: the comment of %s begins with other words: %q", fset.Position(d.doc.Pos()), d.name, firstLine(d.doc.Text()))
		}
	})
}

// TestBegins holds the rule against what it is for.
func TestBegins(t *testing.T) {
	for _, c := range []struct {
		comment, name string
		sentence      bool
		want          bool
	}{
		{"tenantShare is what each may have.", "tenantShare", false, true},
		{"share is what each may have.", "tenantShare", false, false},
		{"A phase is what the model is doing.", "phase", false, true},
		{"Phase is what the model is doing.", "phase", false, false},
		{"a capture is a stream.", "capture", false, false},
		{"Addresses of a bed, by side.", "outside", true, true},
		{"path is PATH.", "hookPath", true, false},
		{"hookPath is PATH.", "hookPath", true, true},
		{"b's part of it.", "b", true, true},
		{"CarrierTCP, and nothing else.", "CarrierTCP", false, true},
		{"", "x", false, true}, // go:embed and its like
	} {
		if got := begins(c.comment, c.name, c.sentence); got != c.want {
			t.Errorf("begins(%q, %q, %v) = %v", c.comment, c.name, c.sentence, got)
		}
	}
}

// A declaration is a name with its comment.
type declaration struct {
	name     string
	doc      *ast.CommentGroup
	sentence bool // the comment need not begin with the name
}

// declared lists what is declared in a file, outside functions.
func declared(f *ast.File) (all []declaration) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			all = append(all, declaration{d.Name.Name, d.Doc, isTest(d.Name.Name)})
		case *ast.GenDecl:
			for _, s := range d.Specs {
				all = append(all, spec(d, s)...)
			}
		}
	}
	return all
}

// spec is one part of a declaration; alone, it has the comment of the whole.
func spec(d *ast.GenDecl, s ast.Spec) []declaration {
	alone := !d.Lparen.IsValid()
	switch s := s.(type) {
	case *ast.TypeSpec:
		doc := s.Doc
		if alone {
			doc = d.Doc
		}
		return []declaration{{s.Name.Name, doc, false}}
	case *ast.ValueSpec:
		doc := s.Doc
		if alone {
			doc = d.Doc
		}
		return []declaration{{s.Names[0].Name, doc, true}}
	}
	return nil // an import
}

var testName = regexp.MustCompile(`^(Test|Benchmark|Fuzz|Example)([^a-z]|$)`)

func isTest(name string) bool { return testName.MatchString(name) }

// begins tells whether a comment begins with a name, which may stand behind an
// article, or, if a sentence will do, with a capital.
func begins(comment, name string, sentence bool) bool {
	words := strings.Fields(comment)
	if len(words) == 0 {
		return true
	}
	first := words[0]
	if sentence && !unicode.IsLower([]rune(first)[0]) {
		return true
	}
	if len(words) > 1 && (first == "A" || first == "An" || first == "The" || first == "Each") {
		first = words[1]
	}
	first = strings.TrimRight(first, ",:.;")
	return first == name || strings.TrimSuffix(first, "'s") == name
}

func firstLine(text string) string { line, _, _ := strings.Cut(text, "\n"); return line }

var (
	fileName = regexp.MustCompile(`\b[a-z0-9_]+\.go\b`)
	pathStep = regexp.MustCompile(`\b([a-z0-9_]+\.go) ([a-zA-Z]+)`) // "outbound.go parse"
)

// TestMap keeps the map of the path true: every file of the gateway is on it,
// what it names is there, and a function that it names is in that file.
func TestMap(t *testing.T) {
	dir := filepath.Join(root(t), "gateway")
	src, err := os.ReadFile(filepath.Join(dir, "doc.go"))
	if err != nil {
		t.Fatal(err)
	}
	onMap := map[string]bool{"doc.go": true}
	for _, name := range fileName.FindAllString(string(src), -1) {
		onMap[name] = true
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("doc.go names a file that is gone: %v", err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) < len(onMap) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if name := filepath.Base(f); !strings.HasSuffix(name, "_test.go") && !onMap[name] {
			t.Errorf("gateway/%s is not on the map, doc.go", name)
		}
	}
	path, _, ok := strings.Cut(string(src), "# The rest of the story")
	steps := pathStep.FindAllStringSubmatch(path, -1)
	if !ok || len(steps) < 8 {
		t.Fatalf("%d steps of the path in doc.go", len(steps))
	}
	for _, s := range steps {
		code, err := os.ReadFile(filepath.Join(dir, s[1]))
		if err == nil && !regexp.MustCompile(`(?m)^func (\([^)]*\) )?`+s[2]+`\(`).Match(code) {
			t.Errorf("doc.go: %s has no function %s", s[1], s[2])
		}
	}
}

var resultName = regexp.MustCompile(`bench/results/[A-Za-z0-9._-]+\.txt`)

// TestResultsAreThere: a number that is said to be in a file can be looked up there.
func TestResultsAreThere(t *testing.T) {
	named := func(from string, text []byte) {
		for _, name := range resultName.FindAllString(string(text), -1) {
			if _, err := os.Stat(filepath.Join(root(t), name)); err != nil {
				t.Errorf("%s names %s, which is not there", from, name)
			}
		}
	}
	sources(t, func(path string, src []byte, _ *ast.File, _ *token.FileSet) { named(path, src) })
	for _, pattern := range []string{"*.md", "deploy/*/*/*.md", "bench/results/*.txt"} {
		files, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			named(f, text)
		}
	}
}
