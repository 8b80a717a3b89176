package mgmt

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/connswap/connswap/shared/wire"
)

// Bounds of a page of a list, in entries.
const (
	defaultLimit = 100
	MaxLimit     = 1000
)

// Page is which part of a list a request asks for. A list is in the order of a key that no two entries share and that
// no entry ever changes; a cursor has the key of the last entry that was sent. So whoever follows the cursors gets each
// entry once that is there all the time, whatever comes and goes meanwhile.
type Page struct {
	Limit  int
	cursor cursor
}

// cursor is opaque to whoever gets it.
type cursor struct {
	kind     string // of the list
	instance string // of the process: another one gives the same keys to other entries
	key      string // empty for the beginning
}

// PageOf reads limit and cursor from a request for a list of some kind, of which this is the process's instance.
func PageOf(r *http.Request, kind, instance string) (Page, error) {
	p := Page{Limit: defaultLimit, cursor: cursor{kind: kind, instance: instance}}
	query := r.URL.Query()
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxLimit {
			return p, wire.Errorf(wire.CodeInvalid, "limit is %.20q; give 1 to %d, or leave it out for %d", text, MaxLimit, defaultLimit)
		}
		p.Limit = n
	}
	text := query.Get("cursor")
	if text == "" {
		return p, nil
	}
	given, ok := parseCursor(text)
	switch {
	case !ok:
		return p, wire.Errorf(wire.CodeInvalid, "%.80q is no cursor; give the next of the page before, or none to begin", text)
	case given.kind != kind:
		return p, wire.Errorf(wire.CodeInvalid, "the cursor is of the list of %.20q, this is the one of %s; begin without a cursor", given.kind, kind)
	case given.instance != instance:
		return p, wire.Errorf(wire.CodeInvalid, "the cursor is of a process that has ended; begin again without a cursor")
	}
	p.cursor = given
	return p, nil
}

// After is the key of the last entry of the page before; empty for the first page.
func (p Page) After() string { return p.cursor.key }

// AfterNumber is After for keys that are numbers from 1 on.
func (p Page) AfterNumber() (uint64, error) {
	if p.cursor.key == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(p.cursor.key, 10, 64)
	if err != nil {
		return 0, wire.Errorf(wire.CodeInvalid, "the cursor is not one that was given; begin again without a cursor")
	}
	return n, nil
}

// Cut keeps the first Limit of the entries that follow After, and returns the cursor for those that follow them; it is
// empty where there are none.
func Cut[T any](p Page, entries []T, key func(T) string) (page []T, next string) {
	if len(entries) <= p.Limit {
		return entries, ""
	}
	page = entries[:p.Limit]
	p.cursor.key = key(page[p.Limit-1])
	return page, p.cursor.String()
}

// NumberKey is a number as a key.
func NumberKey(n uint64) string { return strconv.FormatUint(n, 10) }

func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(c.kind + "\n" + c.instance + "\n" + c.key))
}

func parseCursor(text string) (cursor, bool) {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Split(string(decoded), "\n")
	if err != nil || len(parts) != 3 || parts[2] == "" {
		return cursor{}, false
	}
	return cursor{kind: parts[0], instance: parts[1], key: parts[2]}, true
}
