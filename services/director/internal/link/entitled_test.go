package link

import "testing"

// TestEntitled: who answers at a worker's address has to be that worker, as far as certificates name anybody.
func TestEntitled(t *testing.T) {
	for name, test := range map[string]struct {
		names []string
		named bool
		ok    bool
	}{
		"names nobody, nor did it at registration": {nil, false, true},
		"names it":                              {[]string{"a"}, true, true},
		"names it and others":                   {[]string{"b", "a"}, true, true},
		"names it, although it did not before":  {[]string{"a"}, false, true},
		"names nobody, but did at registration": {nil, true, false},
		"names another one":                     {[]string{"b"}, true, false},
		"names another one, and nobody before":  {[]string{"b"}, false, false},
	} {
		if err := entitled(test.names, Peer{Label: "a", UserAddr: "10.0.0.1:1", Named: test.named}); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
