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
	keys := keysOf(reflect.TypeFor[Config]())
	if len(keys) < 80 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, key := range keys {
		if !regexp.MustCompile(`(?m)^[-# ]*` + key + `:`).Match(text) {
			t.Errorf("deploy/config/everything.yaml does not tell of %s", key)
		}
	}
}

// keysOf are the names of all keys of a config, without those around them.
func keysOf(t reflect.Type) (keys []string) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return keysOf(t.Elem())
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			if key := f.Tag.Get("yaml"); key != "" {
				keys = append(append(keys, key), keysOf(f.Type)...)
			}
		}
	}
	return keys
}
