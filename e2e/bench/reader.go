package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/services/client/connswap"
)

// reader reads one stream and takes the times.
type reader struct {
	mu     sync.Mutex
	news   *sync.Cond
	tokens int
	last   time.Time     // when the last token came
	pause  time.Duration // the longest between two tokens since it was asked for
	ended  time.Time     // when the token came that ended it
	swaps  []swap
	back   int // how often another connection took over
	err    error
}

// swap is one that the client saw.
type swap struct {
	kind    string        // failover or planned
	gap     time.Duration // between the tokens around it
	resumed time.Time     // when the first token after it came
}

var errComplete = errors.New("the stream is complete; ask for fewer faults")

func newReader() *reader {
	r := &reader{}
	r.news = sync.NewCond(&r.mu)
	return r
}

// read reads to the end.
func (r *reader) read(stream *connswap.Stream) {
	for event, err := range stream.Events() {
		r.mu.Lock()
		switch e := event.(type) {
		case connswap.Token:
			r.token(time.Now())
		case connswap.Swapped:
			r.swaps = append(r.swaps, swap{e.Kind, e.Gap, time.Now()})
		case connswap.Resumed:
			r.back++
		case connswap.Done:
			r.err = errComplete
		}
		if err != nil {
			r.err = err
		}
		r.news.Broadcast()
		r.mu.Unlock()
	}
}

// token notes when a token came. r.mu is held.
func (r *reader) token(now time.Time) {
	if r.tokens++; r.tokens > 1 {
		if pause := now.Sub(r.last); pause > r.pause {
			r.pause, r.ended = pause, now
		}
	}
	r.last = now
}

// takePause returns the longest pause between two tokens since the last call, with the one under way.
func (r *reader) takePause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	longest := max(r.pause, time.Since(r.last))
	r.pause = 0
	return longest
}

// readHTTP asks for a stream and reads it to the end, as one who is told of no swap.
func (r *reader) readHTTP(conn *part.Chat, i int) {
	stream, err := conn.Ask(prompt(i), uint64(i), 0)
	for {
		if err == nil {
			_, err = stream.Next()
		}
		r.mu.Lock()
		switch {
		case err == nil:
			r.token(time.Now())
		case errors.Is(err, io.EOF):
			r.err = errComplete
		default:
			r.err = err
		}
		r.news.Broadcast()
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// takeLongest returns the longest pause since the last call as the swap that it was.
func (r *reader) takeLongest() swap {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := swap{kind: "failover", gap: r.pause, resumed: r.ended}
	r.pause = 0
	return s
}

// waitTimeout is how long the bench waits for anything.
const waitTimeout = 30 * time.Second

// await waits until ready, which is called with r.mu held.
func (r *reader) await(ctx context.Context, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, waitTimeout, fmt.Errorf("%s for %v", what, waitTimeout))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.news.Broadcast()
	})()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ready() && r.err == nil && ctx.Err() == nil {
		r.news.Wait()
	}
	if r.err != nil {
		return r.err
	}
	return context.Cause(ctx)
}

// awaitToken waits until the stream has had so many tokens.
func (r *reader) awaitToken(ctx context.Context, count int) error {
	return r.await(ctx, "no token", func() bool { return r.tokens >= count })
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tokens
}

func (r *reader) awaitSwap(ctx context.Context) error {
	return r.await(ctx, "no swap", func() bool { return len(r.swaps) > 0 })
}

// takeSwap returns the oldest swap not taken yet.
func (r *reader) takeSwap() swap {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.swaps[0]
	r.swaps = r.swaps[1:]
	return first
}

// takeResumed returns how often another connection took over.
func (r *reader) takeResumed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.back
}

// takeSwaps returns all swaps not taken yet.
func (r *reader) takeSwaps() []swap {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.swaps
	r.swaps = nil
	return all
}
