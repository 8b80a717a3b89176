package part

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// textSize is the length of a token, in bytes.
const textSize = 64

// digits is how many each of the two numbers in a token has, in hex.
const digits = 16

const fill = "................................"

// appendText appends a token: when it was due, in nanoseconds of the wall clock (0 if nobody waited for it), and its
// sequence.
func appendText(b []byte, due int64, sequence uint64) []byte {
	b = appendHex(b, uint64(due))
	b = appendHex(b, sequence)
	return append(b, fill[:textSize-2*digits]...)
}

func appendHex(b []byte, n uint64) []byte {
	const hex = "0123456789abcdef"
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, hex[n>>shift&15])
	}
	return b
}

type text interface{ string | []byte }

// sequenceOf returns a token's sequence.
func sequenceOf[T text](text T) (uint64, error) {
	if len(text) != textSize {
		return 0, fmt.Errorf("a token of %d bytes: %q", len(text), text)
	}
	return parseHex(text[digits : 2*digits])
}

// dueOf returns when a token was due.
func dueOf[T text](text T) (int64, error) {
	due, err := parseHex(text[:digits])
	return int64(due), err
}

func parseHex[T text](text T) (n uint64, err error) {
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, fmt.Errorf("not a number: %q", text)
		}
	}
	return n, nil
}

// steps gives all sessions of a worker the same instants, as a decode step does. Whoever is late waits for the next one.
type steps struct {
	interval time.Duration // 0: nobody waits, and no token has a time
	present  atomic.Pointer[step]
	last     atomic.Int64 // when the last one was due
}

type step struct {
	over chan struct{} // closed at the instant
	due  int64         // nanoseconds of the wall clock; to be read once over is closed
}

// newSteps begins to step, until ctx ends.
func newSteps(ctx context.Context, interval time.Duration) *steps {
	s := &steps{interval: interval}
	if interval > 0 {
		s.present.Store(&step{over: make(chan struct{})})
		go s.run(ctx)
	}
	return s
}

func (s *steps) run(ctx context.Context) {
	start := time.Now()
	for {
		left := s.interval - time.Since(start)%s.interval
		select {
		case <-ctx.Done():
			return
		case <-time.After(left):
		}
		now := time.Now()
		over := s.present.Swap(&step{over: make(chan struct{})})
		over.due = now.UnixNano() - int64(now.Sub(start)%s.interval)
		s.last.Store(over.due)
		close(over.over)
	}
}

// wait returns when the next step is due, at that instant.
func (s *steps) wait(ctx context.Context) (due int64, err error) {
	if s.interval == 0 {
		return 0, nil
	}
	return s.present.Load().wait(ctx)
}

func (s *step) wait(ctx context.Context) (due int64, err error) {
	select {
	case <-s.over:
		return s.due, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// next is wait for a stream that has made so many tokens: its first one is due at once.
func (s *steps) next(ctx context.Context, made uint64) (due int64, err error) {
	if made == 0 && s.interval > 0 {
		return time.Now().UnixNano(), nil
	}
	return s.wait(ctx)
}
