package mgmt_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/mgmt"
)

// list is a list that changes.
type list []uint64

func (l *list) page(r *http.Request) (any, error) {
	page, err := mgmt.PageOf(r, "numbers", "instance-1")
	if err != nil {
		return nil, err
	}
	after, err := page.AfterNumber()
	if err != nil {
		return nil, err
	}
	rest := slices.DeleteFunc(slices.Clone(*l), func(n uint64) bool { return n <= after })
	rest, next := mgmt.Cut(page, rest, mgmt.NumberKey)
	return map[string]any{"numbers": rest, "next": next, "total": len(*l)}, nil
}

// handlerTransport answers requests by a handler, and does something before each.
type handlerTransport struct {
	http.Handler

	before func()
}

func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.before != nil {
		t.before()
	}
	recorder := httptest.NewRecorder()
	t.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// TestPages follows a list while entries come and go: none comes twice, and none is missing that was there all the time.
func TestPages(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	numbers, last := list{}, uint64(0)
	grow := func(n int) {
		for range n {
			last++
			numbers = append(numbers, last)
		}
	}
	grow(5000)
	stayed := slices.Clone(numbers)
	mux := mgmt.NewMux(fine, noted(fine), anybody())
	mux.Document("/v1/numbers", numbers.page, "limit", "cursor")
	pages := 0
	transport := handlerTransport{mux, func() {
		pages++
		grow(100)
		numbers = slices.DeleteFunc(numbers, func(uint64) bool { return random.IntN(10) == 0 })
		stayed = slices.DeleteFunc(stayed, func(n uint64) bool { return !slices.Contains(numbers, n) })
	}}
	var whole struct {
		Numbers []uint64
		Total   int
		Next    *string
	}
	require.NoError(t, mgmt.Get(t.Context(), transport, "http://x/v1/numbers?limit=1000", &whole))
	require.Greater(t, pages, 4)
	require.Len(t, numbers, whole.Total)
	require.Nil(t, whole.Next)
	require.True(t, slices.IsSorted(whole.Numbers))
	require.Equal(t, whole.Numbers, slices.Compact(slices.Clone(whole.Numbers)), "none comes twice")
	require.Subset(t, whole.Numbers, stayed, "none is lost")
}

// TestPagesThatAreNone gives limits and cursors that are wrong. Each answer says what to do.
func TestPagesThatAreNone(t *testing.T) {
	numbers := list{1, 2, 3}
	mux := mgmt.NewMux(fine, noted(fine), anybody())
	mux.Document("/v1/numbers", numbers.page, "limit", "cursor")
	ask := func(query url.Values) (int, string) {
		recorder := httptest.NewRecorder()
		mux.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/numbers?"+query.Encode(), nil))
		return recorder.Code, recorder.Body.String()
	}
	cursorOf := func(kind, instance string) string {
		page, err := mgmt.PageOf(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?limit=1", nil), kind, instance)
		require.NoError(t, err)
		_, next := mgmt.Cut(page, []int{1, 2}, func(n int) string { return fmt.Sprint(n) })
		return next
	}
	code, body := ask(url.Values{"cursor": {cursorOf("numbers", "instance-1")}, "limit": {"1"}})
	require.Equal(t, http.StatusOK, code)
	require.Regexp(t, `"numbers": \[\s*2\s*\]`, body)
	code, body = ask(url.Values{"limt": {"1"}})
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, body, `\"limt\" is not known here; /v1/numbers has limit, cursor`)
	for name, c := range map[string]struct {
		limit, cursor, words string
	}{
		"no number":             {"many", "", "give 1 to 1000"},
		"nothing":               {"0", "", "give 1 to 1000"},
		"too many":              {"1001", "", "give 1 to 1000"},
		"no cursor":             {"", "2", "none to begin"},
		"not even text":         {"", "\xff\xfe", "none to begin"},
		"of another list":       {"", cursorOf("words", "instance-1"), "of the list of"},
		"of an earlier process": {"", cursorOf("numbers", "instance-0"), "begin again without"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := ask(url.Values{"limit": {c.limit}, "cursor": {c.cursor}})
			require.Equal(t, http.StatusBadRequest, code)
			require.Contains(t, body, c.words)
			require.Contains(t, body, `{"error":{"code":"invalid_request","message":"`)
		})
	}
}
