package conffile

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// at is an error at a token.
func at(tk *token.Token, err error) *Error {
	e := &Error{Err: err}
	if tk != nil && tk.Position != nil {
		e.Line, e.Column = tk.Position.Line, tk.Position.Column
	}
	return e
}

// place turns what parsing or decoding complained about into an Error.
func place(name string, root ast.Node, err error) error {
	var e *Error
	var y yaml.Error
	switch {
	case errors.As(err, &e):
	case errors.As(err, &y):
		e = at(y.GetToken(), plain(y))
		e.Key = keyAt(root, e.Line, e.Column)
	default:
		e = &Error{Err: err}
	}
	e.File = name
	return e
}

// placeAll gives File and position to the errors made with At within err.
func placeAll(name string, root ast.Node, err error) error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, err := range many.Unwrap() {
			all = append(all, placeAll(name, root, err))
		}
		return errors.Join(all...)
	}
	e := &Error{Err: err}
	var known *Error
	if errors.As(err, &known) && known.File == "" {
		e = at(tokenOf(root, known.Key), known.Err)
		e.Key = known.Key
	}
	e.File = name
	return e
}

// plain says what is wrong in words of the file instead of words of Go.
func plain(err yaml.Error) error {
	switch e := err.(type) {
	case *yaml.UnknownFieldError:
		return errors.New("unknown key")
	case *yaml.OverflowError:
		return fmt.Errorf("number %s is too large", e.SrcNum)
	case *yaml.TypeError:
		return fmt.Errorf("want %s, got %s", kindOf(e.DstType), kindOf(e.SrcType))
	case *yaml.UnexpectedNodeTypeError:
		return fmt.Errorf("want %s, got %s", word(e.Expected.YAMLName()), word(e.Actual.YAMLName()))
	}
	return errors.New(err.GetMessage())
}

func kindOf(t reflect.Type) string {
	if t == nil {
		return "nothing"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "keys with values"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Interface:
		return "a value"
	}
	if t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 {
		return "a whole number"
	}
	return t.String()
}

// word is the library's name of a kind of node in ours.
func word(kind string) string {
	switch kind {
	case "sequence":
		return "a list"
	case "mapping":
		return "keys with values"
	case "string":
		return "text"
	}
	return kind
}

// walker calls itself with every node of a tree.
type walker func(ast.Node)

// Visit is what ast.Walk asks for.
func (w walker) Visit(n ast.Node) ast.Visitor { w(n); return w }

// keyAt is the key of the innermost value or key that begins at a position.
func keyAt(root ast.Node, line, column int) (key string) {
	if root == nil {
		return ""
	}
	ast.Walk(walker(func(n ast.Node) {
		if n == nil {
			return
		}
		if tk := n.GetToken(); tk != nil && tk.Position.Line == line && tk.Position.Column == column {
			if path := keyOf(n); len(path) >= len(key) {
				key = path
			}
		}
	}), root)
	return key
}

// tokenOf finds the value of a key, or the nearest key around it that the
// file has; nil if it has none of them.
func tokenOf(root ast.Node, key string) (tk *token.Token) {
	best := -1
	if root == nil {
		return nil
	}
	ast.Walk(walker(func(n ast.Node) {
		kv, isKey := n.(*ast.MappingValueNode)
		if isKey {
			n = kv.Key
		}
		if n == nil {
			return
		}
		path := keyOf(n)
		if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
			n = m.Values[0].Key // its own token is the first colon
		}
		if len(path) > best && path != "" && (path == key || strings.HasPrefix(key, path) && strings.ContainsAny(key[len(path):][:1], ".[")) {
			tk, best = n.GetToken(), len(path)
		}
	}), root)
	return tk
}

// keyOf is the library's path "$.hosts[0].name" as we write it.
func keyOf(n ast.Node) string {
	return strings.TrimPrefix(strings.TrimPrefix(n.GetPath(), "$"), ".")
}
