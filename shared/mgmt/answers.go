package mgmt

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

const (
	maxAnswers   = 8 << 20         // bytes of documents that wait for their readers
	maxBuilding  = 2               // documents being built: each may need several times what it has in the end
	buildTimeout = time.Second     // how long a request waits for its turn to build
	slowAfter    = 2 * time.Second // an answer that is older than that goes where there is no room for another one
)

// answers bounds what documents cost, however many ask for them, and however slowly they read. It is safe for concurrent
// use.
type answers struct {
	building chan struct{}

	mu    sync.Mutex
	bytes int // of those open, maxAnswers at most
	open  map[*answer]struct{}
}

// answer is a document on its way to its reader.
type answer struct {
	conn    *conn // nil where it did not come through Serve
	bytes   int   // maxAnswers at most: a larger one goes alone
	since   time.Time
	written int64 // by conn before
}

func newAnswers() *answers {
	return &answers{building: make(chan struct{}, maxBuilding), open: map[*answer]struct{}{}}
}

// serve answers a request with a document.
func (a *answers) serve(w http.ResponseWriter, r *http.Request, build func(*http.Request) (any, error)) {
	body, err := a.build(r, build)
	if err == nil {
		err = a.write(w, r, body)
	}
	if err != nil {
		Refuse(w, err)
	}
}

// build builds a document when it is its turn.
func (a *answers) build(r *http.Request, build func(*http.Request) (any, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(r.Context(), buildTimeout)
	defer cancel()
	select {
	case a.building <- struct{}{}:
	case <-ctx.Done():
		return nil, wire.Errorf(wire.CodeLimit, "%d documents are being built already; ask again in a second", maxBuilding)
	}
	defer func() { <-a.building }()
	document, err := build(r)
	if err != nil {
		return nil, err
	}
	body, err := json.MarshalIndent(document, "", "  ")
	return append(body, '\n'), err
}

// write sends a document, if there is room for it.
func (a *answers) write(w http.ResponseWriter, r *http.Request, body []byte) error {
	one := a.begin(connOf(r.Context()), min(cap(body), maxAnswers))
	if one == nil {
		return wire.Errorf(wire.CodeLimit, "%d MiB of answers wait for their readers already; ask again in a second", maxAnswers>>20)
	}
	defer a.end(one)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(body) //nolint:errcheck // the asker is gone; there is nobody to tell
	// What the server has buffered is not counted any more when this returns, and is small.
	return nil
}

// begin counts an answer in. If there is no room, it closes connections whose readers are slow; if that does not help, it
// returns nil.
func (a *answers) begin(c *conn, bytes int) *answer {
	one := &answer{conn: c, bytes: bytes, since: time.Now()}
	if c != nil {
		one.written = c.written.Load()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.bytes+bytes > maxAnswers {
		slowest := a.slowest()
		if slowest == nil {
			return nil
		}
		a.remove(slowest)
		_ = slowest.conn.Conn.Close() // its handler gets the error
	}
	a.bytes += bytes
	a.open[one] = struct{}{}
	return one
}

// end counts an answer out.
func (a *answers) end(one *answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remove(one)
}

// remove counts an answer out, unless it was. a.mu is held.
func (a *answers) remove(one *answer) {
	if _, ok := a.open[one]; ok {
		delete(a.open, one)
		a.bytes -= one.bytes
	}
}

// slowest returns the answer that is read most slowly, of those that had their time; nil if there is none. a.mu is held.
func (a *answers) slowest() *answer {
	var slowest *answer
	var rate float64
	for one := range a.open {
		age := time.Since(one.since)
		if one.conn == nil || age < slowAfter {
			continue
		}
		if r := float64(one.conn.written.Load()-one.written) / age.Seconds(); slowest == nil || r < rate {
			slowest, rate = one, r
		}
	}
	return slowest
}
