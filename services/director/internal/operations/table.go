// Package operations runs what operators ask for over HTTP: each request is an operation that has a name, can be followed
// from several places, one after the other or at once, and is given up when nobody follows it any more.
package operations

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

// Bounds of a Table.
const (
	maxRunning    = 64
	maxRemembered = 1024             // running ones included
	remembered    = time.Minute      // after the end
	unfollowed    = 10 * time.Second // after which an operation that nobody follows is given up: time to connect again
)

var (
	errLeft     = errors.New("the operator gave it up")
	errShutdown = wire.Errorf(wire.CodeShutdown, "the director shuts down; what has moved has moved")
)

// ErrOtherBody refuses a request with an Idempotency-Key that its caller has used for another one.
var ErrOtherBody = wire.Errorf(wire.CodeInvalid, "this Idempotency-Key came with another request before; give each request a new one")

// Table has the operations that run, and for a minute those that are over. It is safe for concurrent use. Each operation
// that runs has a goroutine; Close waits for all of them.
type Table struct {
	log *zap.Logger

	mu      sync.Mutex
	byID    map[string]*Operation
	byKey   map[key]*Operation // those that were begun with one
	ordered []*Operation       // the oldest first; never more than maxRemembered
	closed  bool
	running sync.WaitGroup
}

// key is what a caller calls its request.
type key struct{ caller, name string }

// Request is what begins an operation.
type Request struct {
	Kind   string // what is done, in a word
	Caller string
	Key    string // of the caller's choice: another Request with the same one is the same operation; optional
	Digest string // of all else that the caller said

	// Run does it, until ctx ends. progress may be called now and then, with what can be shown as JSON; the result is such a
	// value too.
	Run func(ctx context.Context, progress func(any)) (result any, err error)
}

// NewTable returns an empty table.
func NewTable(log *zap.Logger) *Table {
	return &Table{log: log, byID: map[string]*Operation{}, byKey: map[key]*Operation{}}
}

// Begin runs a request, or finds the operation that the same request has begun. The caller follows it until it calls
// leave.
func (t *Table) Begin(r Request) (o *Operation, leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	named := key{r.Caller, r.Key}
	if known := t.byKey[named]; known != nil && r.Key != "" {
		if known.digest != r.Digest {
			return nil, nil, ErrOtherBody
		}
		return known, known.follow(), nil
	}
	if err := t.room(); err != nil {
		return nil, nil, err
	}
	o = newOperation(r)
	t.byID[o.ID] = o
	t.ordered = append(t.ordered, o)
	if r.Key != "" {
		t.byKey[named] = o
	}
	leave = o.follow()
	t.log.Info("operation begins", zap.String("operation", o.ID), zap.String("kind", r.Kind), zap.String("operator", r.Caller))
	t.running.Go(func() { o.run(r.Run) })
	return o, leave, nil
}

// room says why no operation can begin. t.mu is held.
func (t *Table) room() error {
	if t.closed {
		return errShutdown
	}
	running := 0
	for _, o := range t.ordered {
		if !o.over() {
			running++
		}
	}
	if running >= maxRunning {
		return wire.Errorf(wire.CodeLimit, "%d operations run already; ask again when some are over", running)
	}
	return nil
}

// Find returns the operation with an id.
func (t *Table) Find(id string) (*Operation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	if o := t.byID[id]; o != nil {
		return o, nil
	}
	return nil, wire.Errorf(wire.CodeNotFound, "no operation %q; one is known until a minute after its end", wire.Text(id))
}

// forget drops operations that have been over for long enough, and the oldest of those that are over where there would be
// too many with the next one. t.mu is held.
func (t *Table) forget() {
	surplus := len(t.ordered) + 1 - maxRemembered
	kept := t.ordered[:0]
	for _, o := range t.ordered {
		if over := o.over(); over && (surplus > 0 || time.Since(o.ended) >= remembered) {
			surplus--
			delete(t.byID, o.ID)
			delete(t.byKey, key{o.caller, o.key})
			continue
		}
		kept = append(kept, o)
	}
	clear(t.ordered[len(kept):])
	t.ordered = kept
}

// Close gives up what runs, and returns when nothing of it does any more. Nothing begins afterwards.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	for _, o := range t.ordered {
		o.cancel(errShutdown)
	}
	t.mu.Unlock()
	t.running.Wait()
}

// newOperation returns an operation that does not run yet.
func newOperation(r Request) *Operation {
	o := &Operation{
		ID: "op-" + identity.NewID(), Kind: r.Kind, caller: r.Caller, key: r.Key, digest: r.Digest,
		done: make(chan struct{}), news: make(chan struct{}),
	}
	o.ctx, o.cancel = context.WithCancelCause(context.Background())
	return o
}
