package mgmt

import (
	"net/http"
	"net/url"
	"testing"
)

// FuzzCursor: what is no cursor of this list is refused; what is one comes back as it was.
func FuzzCursor(f *testing.F) {
	f.Add("", "")
	f.Add("100", cursor{"swaps", "abc", "17"}.String())
	f.Add("-1", cursor{"swaps", "abc", "-1"}.String())
	f.Add("1001", "!!")
	f.Fuzz(func(t *testing.T, limit, text string) {
		r := &http.Request{URL: &url.URL{RawQuery: url.Values{"limit": {limit}, "cursor": {text}}.Encode()}}
		p, err := PageOf(r, "swaps", "abc")
		if err != nil {
			return
		}
		if p.Limit < 1 || p.Limit > MaxLimit {
			t.Errorf("limit %d", p.Limit)
		}
		if text == "" {
			return
		}
		again, ok := parseCursor(p.cursor.String())
		if !ok || again != p.cursor || p.After() == "" {
			t.Errorf("%q: %+v, %+v", text, p.cursor, again)
		}
		if n, err := p.AfterNumber(); err == nil && n == 0 && p.After()[0] != '0' {
			t.Errorf("%q is number %d", p.After(), n)
		}
	})
}
