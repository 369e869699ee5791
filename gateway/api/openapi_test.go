package api_test

import (
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/gateway/api/apitest"
)

var update = flag.Bool("update", false, "write testdata/openapi.yaml anew")

func document(t *testing.T, path string) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	api.New(api.Config{Backend: apitest.New()}).Handler().
		ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	if w.Code != 200 {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

// TestDocumentIsKept shows a change of the API in review: clients depend on it.
func TestDocumentIsKept(t *testing.T) {
	const golden = "testdata/openapi.yaml"
	got := document(t, "/openapi.yaml")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("the API has changed; if that is meant: go test ./gateway/api -run Document -update\n%s", d)
	}
}

func TestDocumentIsSound(t *testing.T) {
	raw := document(t, "/openapi.json")
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string                     `json:"operationId"`
			Summary     string                     `json:"summary"`
			Responses   map[string]json.RawMessage `json:"responses"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI[:3] != "3.1" {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	listed := operationsInDoc(t)
	seen := map[string]bool{}
	for path, item := range doc.Paths {
		for method, op := range item {
			if op.OperationID == "" || seen[op.OperationID] || op.Summary == "" {
				t.Errorf("%s %s: id %q, summary %q", method, path, op.OperationID, op.Summary)
			}
			seen[op.OperationID] = true
			if !listed[strings.ToUpper(method)+" "+path] {
				t.Errorf("doc.go does not list %s %s", method, path)
			}
			if _, ok := op.Responses["503"]; !ok {
				t.Errorf("%s %s does not tell of its errors", method, path)
			}
		}
	}
	if len(seen) != len(listed) {
		t.Errorf("%d operations, in doc.go %d", len(seen), len(listed))
	}
	for _, m := range regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllStringSubmatch(string(raw), -1) {
		if doc.Components.Schemas[m[1]] == nil {
			t.Errorf("the document refers to %s, which it does not have", m[1])
		}
	}
}

// operationsInDoc are those that the package comment lists.
func operationsInDoc(t *testing.T) map[string]bool {
	t.Helper()
	src, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(GET|POST|PUT|DELETE) +(/v1/[^\s]*)`).FindAllStringSubmatch(string(src), -1) {
		listed[m[1]+" "+m[2]] = true
	}
	return listed
}
