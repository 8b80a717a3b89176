package operations

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// progressEvery is how often there is news of an operation, at most.
const progressEvery = 200 * time.Millisecond

// Names of events.
const (
	Progress = "progress"
	Result   = "result" // the last one
	Failure  = "error"  // the last one instead
)

// Event is something that an operation has to say. Events are numbered from 1; whoever was away misses progress, but not
// the last one.
type Event struct {
	Number uint64
	Name   string
	Data   json.RawMessage
}

// Operation is one request that runs, or is over. It is safe for concurrent use.
type Operation struct {
	ID   string
	Kind string

	caller, key, digest string

	ctx    context.Context // ends when the operation is given up
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it is over
	ended  time.Time     // readable then
	err    error         // readable then

	mu        sync.Mutex
	last      Event // newest; Number 0 if there is none
	lastTime  time.Time
	news      chan struct{} // closed and replaced with each event
	followers int
	giveUp    *time.Timer // runs while nobody follows it
}

// run does the work.
func (o *Operation) run(work func(context.Context, func(any)) (any, error)) {
	result, err := work(o.ctx, o.progress)
	if err != nil && errors.Is(context.Cause(o.ctx), errShutdown) {
		err = errShutdown
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		err = o.say(Result, result)
	}
	if o.err = err; err != nil {
		refusal := wire.AsError(err, wire.CodeInternal)
		_ = o.say(Failure, struct { // of texts: cannot fail
			Code    wire.Code `json:"code"`
			Message string    `json:"message"`
		}{refusal.Code, refusal.Message})
	}
	o.cancel(nil)
	o.ended = time.Now()
	close(o.done)
}

// progress says how far the operation is, when there is news and not too often.
func (o *Operation) progress(v any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); now.Sub(o.lastTime) >= progressEvery {
		o.lastTime = now
		_ = o.say(Progress, v) // what cannot be shown is not
	}
}

// say makes an event the newest one, unless it says nothing new. o.mu is held.
func (o *Operation) say(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if name == Progress && string(data) == string(o.last.Data) {
		return nil
	}
	o.last = Event{o.last.Number + 1, name, data}
	close(o.news)
	o.news = make(chan struct{})
	return nil
}

// over reports whether the operation has ended.
func (o *Operation) over() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// follow counts a follower in, until leave. When the last one has left, the operation has a while until it is given up.
func (o *Operation) follow() (leave func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.followers++
	if o.giveUp != nil {
		o.giveUp.Stop()
		o.giveUp = nil
	}
	return sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.followers--; o.followers == 0 && !o.over() {
			o.giveUp = time.AfterFunc(unfollowed, o.abandon)
		}
	})
}

// abandon gives the operation up, unless somebody has come back in this very moment.
func (o *Operation) abandon() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.followers == 0 {
		o.cancel(errLeft)
	}
}

// Follow counts a follower in, until leave is called.
func (o *Operation) Follow() (leave func()) { return o.follow() }

// GiveUp ends the operation as soon as it can. What is done is done; the last event tells how it ended.
func (o *Operation) GiveUp() { o.cancel(errLeft) }

// Next waits for an event that is newer than the one with the number after, and returns the newest. It ends with ctx. There
// is none after the last one: more is false then, and the event is the last one.
func (o *Operation) Next(ctx context.Context, after uint64) (e Event, more bool, err error) {
	for {
		o.mu.Lock()
		last, news, over := o.last, o.news, o.over()
		o.mu.Unlock()
		if last.Number > after || over {
			return last, !over, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Event{}, true, ctx.Err()
		}
	}
}

// Wait returns the last event, and the error that it tells of; or the error of ctx, if that ends before.
func (o *Operation) Wait(ctx context.Context) (Event, error) {
	select {
	case <-o.done:
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.last, o.err
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
}
