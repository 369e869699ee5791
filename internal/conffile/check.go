package conffile

import (
	"encoding"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// check walks the file beside the type that it goes into, and finds what the
// library would take silently or refuse without a place: a fraction for a whole
// number, quoted text for a number, text that an UnmarshalText refuses.
func check(n ast.Node, t reflect.Type) *Error {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n == nil || t == nil || n.Type() == ast.NullType {
		return nil
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return tryText(n, t)
	}
	if e := checkNumber(n, t); e != nil {
		return e
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, kv := range n.Values {
			if e := check(kv.Value, child(t, kv.Key.String())); e != nil {
				return e
			}
		}
	case *ast.MappingValueNode:
		return check(n.Value, child(t, n.Key.String()))
	case *ast.SequenceNode:
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			return nil
		}
		for _, v := range n.Values {
			if e := check(v, t.Elem()); e != nil {
				return e
			}
		}
	}
	return nil
}

// tryText gives one value to a fresh t.
func tryText(n ast.Node, t reflect.Type) *Error {
	e := at(n.GetToken(), errors.New("want one value, got several"))
	e.Key = keyOf(n)
	scalar, ok := n.(ast.ScalarNode)
	if !ok {
		return e
	}
	text := fmt.Sprint(scalar.GetValue())
	if tk := n.GetToken(); tk != nil && n.Type() != ast.LiteralType {
		text = tk.Value // a number as it is written
	}
	err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	if err == nil {
		return nil
	}
	e.Err = err
	return e
}

// child is the type that the value of a key goes into; nil if unknown.
func child(t reflect.Type, key string) reflect.Type {
	key = strings.Trim(key, `"'`)
	switch t.Kind() {
	case reflect.Map:
		return t.Elem()
	case reflect.Struct:
		for f := range structFields(t) {
			if f.name == key {
				return f.typ
			}
		}
	}
	return nil
}

// checkNumber refuses what is no whole number where one belongs.
func checkNumber(n ast.Node, t reflect.Type) *Error {
	if t.Kind() < reflect.Int || t.Kind() > reflect.Uint64 {
		return nil
	}
	if _, scalar := n.(ast.ScalarNode); !scalar || n.Type() == ast.IntegerType {
		return nil
	}
	e := at(n.GetToken(), fmt.Errorf("want a whole number, got %.40q", n.GetToken().Value))
	e.Key = keyOf(n)
	return e
}

// field is a key that a struct has, by the rules of the YAML library.
type field struct {
	name string
	typ  reflect.Type
}

// structFields are the keys of a struct, those of its inline ones included.
func structFields(t reflect.Type) iter.Seq[field] {
	return func(yield func(field) bool) {
		for f := range t.Fields() {
			if !f.IsExported() {
				continue
			}
			tag := strings.Split(f.Tag.Get("yaml"), ",")
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if slices.Contains(tag[1:], "inline") && inner.Kind() == reflect.Struct {
				for g := range structFields(inner) {
					if !yield(g) {
						return
					}
				}
				continue
			}
			name := tag[0]
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			if !yield(field{name, f.Type}) {
				return
			}
		}
	}
}
