package operations

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
)

// FuzzBody reads what is, or is not, the body of a request: what passes can be shown, and is no other request when it is
// written again.
func FuzzBody(f *testing.F) {
	f.Add(`{"worker": "worker-a", "timeout_ms": 60000, "force": true}`)
	f.Add(`{"worker": "\u001b[2J\u202e"} `)
	f.Add(`{"wroker": 1}{}`)
	f.Add("[\xff")
	type body struct {
		Worker    string `json:"worker"`
		TimeoutMS uint64 `json:"timeout_ms"`
		Force     bool   `json:"force"`
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(text))
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		var first body
		status, err := decode(r, &first)
		if err != nil {
			if status != http.StatusBadRequest || !strings.Contains(err.Error(), "worker, timeout_ms, force") ||
				strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q: %d, %v", text, status, err)
			}
			return
		}
		if strings.ContainsFunc(first.Worker, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is a worker", first.Worker)
		}
		again, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		var second body
		if err := parse(again, &second); err != nil || digest("drain", first) != digest("drain", second) {
			t.Errorf("%q: %+v, %+v, %v", text, first, second, err)
		}
	})
}
