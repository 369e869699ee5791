// Package conffile reads config files strictly: YAML into a struct, where an
// unknown or repeated key, a value of the wrong kind, an alias or a second
// document is an error that names file, line, column and key. It is the only
// door of the YAML library.
//
// Keys are those of the struct's yaml tags. Types with UnmarshalText take
// text; Size, Rate and Duration of this package do, and are flag values too.
package conffile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxSize is the most bytes that a config file may have. A fleet's
	// largest has some thousand lines; 1 MiB of them takes about a second.
	MaxSize = 1 << 20
	// maxLine and maxFlow bound how deep values nest, since the parser
	// recurses: on one line no deeper than the line is long, and in brackets
	// no deeper than maxFlow.
	maxLine = 4096 // bytes
	maxFlow = 32
)

// Validator is what a config may implement: Load asks it last. Errors made
// with At, also joined ones, are given the place of their key.
type Validator interface{ Validate() error }

// Error says what is wrong in a file, and where.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 is unknown
	Key          string // such as "hosts[0].name"; empty is unknown or the whole file
	Err          error
}

// Error gives "FILE:LINE:COLUMN: KEY: what is wrong".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Key != "" {
		fmt.Fprintf(&b, ": %s", e.Key)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unwrap gives what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// At says that the value of a key, such as "hosts[0].name", is wrong.
func At(key string, err error) error { return &Error{Key: key, Err: err} }

// Load reads the file into cfg, a pointer to a struct. What the file does not
// mention keeps the value that it has in cfg.
func Load(path string, cfg any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return Parse(path, data, cfg)
}

// Parse is Load of a file's content; name stands for the file in errors.
func Parse(name string, data []byte, cfg any) error {
	if len(data) > MaxSize {
		return &Error{File: name, Err: fmt.Errorf("has more than %d bytes", MaxSize)}
	}
	root, err := parse(data)
	if err == nil && root != nil {
		err = decode(root, cfg)
	}
	if err != nil {
		return place(name, root, err)
	}
	if v, ok := cfg.(Validator); ok {
		return placeAll(name, root, v.Validate())
	}
	return nil
}

// parse gives the mapping that the file is; nil when it is empty.
func parse(data []byte) (ast.Node, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // some editors begin files so
	if err := checkLines(data); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(string(data))
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, err
	}
	var root ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.NullType:
		case root != nil:
			return nil, at(doc.Body.GetToken(), errors.New("a second document; want one"))
		default:
			root = doc.Body
		}
	}
	return root, nil
}

func decode(root ast.Node, cfg any) error {
	if e := check(root, reflect.TypeOf(cfg)); e != nil {
		return e
	}
	return yaml.NodeToValue(root, cfg, yaml.Strict())
}

// checkLines refuses lines longer than maxLine.
func checkLines(data []byte) error {
	line := 1
	for l := range strings.Lines(string(data)) {
		if len(l) > maxLine {
			return &Error{Line: line, Column: maxLine, Err: fmt.Errorf("line has more than %d bytes", maxLine)}
		}
		line++
	}
	return nil
}

// checkTokens refuses what a config does not need and what could make a small
// file large: aliases, merge keys, tags, deep brackets.
func checkTokens(tokens token.Tokens) error {
	depth := 0
	for _, tk := range tokens {
		switch tk.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType, token.DirectiveType:
			return at(tk, fmt.Errorf("%q: anchors, aliases, merge keys, tags and directives are not used here", tk.Value))
		case token.SequenceStartType, token.MappingStartType:
			if depth++; depth > maxFlow {
				return at(tk, fmt.Errorf("more than %d brackets deep", maxFlow))
			}
		case token.SequenceEndType, token.MappingEndType:
			depth--
		}
	}
	return nil
}
