package config

import (
	"os"
	"reflect"
	"regexp"
	"testing"
)

// TestEveryKeyIsShown: the example that has every key has every key, if only in a comment.
func TestEveryKeyIsShown(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/config/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	keys, shown := keysOf("", reflect.TypeFor[Config]()), keysIn(string(text))
	if len(keys) < 80 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, key := range keys {
		if !shown[key] {
			t.Errorf("deploy/config/everything.yaml does not tell of %s", key)
		}
	}
}

// keysOf are the keys of a config, each behind those that it stands below:
// "link.calendar.rate".
func keysOf(below string, t reflect.Type) (keys []string) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return keysOf(below, t.Elem())
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			if key := f.Tag.Get("yaml"); key != "" {
				keys = append(append(keys, below+key), keysOf(below+key+".", f.Type)...)
			}
		}
	}
	return keys
}

var keyLine = regexp.MustCompile(`(?m)^( *(?:- )?)(?:# )?([a-z0-9_]+):`)

// keysIn are the keys of a file in the same form, also of those in comments. What
// stands below what is told by how far it is indented.
func keysIn(text string) map[string]bool {
	type level struct {
		indent int
		path   string
	}
	shown, above := make(map[string]bool), []level{{-1, ""}}
	for _, m := range keyLine.FindAllStringSubmatch(text, -1) {
		for len(m[1]) <= above[len(above)-1].indent {
			above = above[:len(above)-1]
		}
		path := above[len(above)-1].path + m[2]
		shown[path] = true
		above = append(above, level{len(m[1]), path + "."})
	}
	return shown
}
