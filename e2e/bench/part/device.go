package part

import (
	"context"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
)

// Device is what makes one worker of a fleet better or worse than another.
type Device struct {
	Label    string
	Capacity int // streams at once
	Slow     int // factor on all its times; 1 for none
}

// What a device of Slow 1 takes.
const (
	prefillTime = 5 * time.Millisecond // of one prompt
	stepTime    = 10 * time.Millisecond
	seatTime    = 500 * time.Microsecond // of a step, for each stream in it
)

// device is an engine that its generations share as they would a GPU: in each step it makes a token for all of them, and
// a step takes the longer the more they are. While it works through the prompt of a new one, all others wait.
type device struct {
	Device
	opened chan *seat
}

// newDevice begins to work, until ctx ends.
func newDevice(ctx context.Context, d Device) *device {
	e := &device{Device: d, opened: make(chan *seat, d.Capacity)}
	go e.run(ctx)
	return e
}

func (e *device) Name() string        { return "device" }
func (e *device) Fingerprint() string { return "device/1" }

func (e *device) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	s := &seat{token: make(chan struct{}, 1), left: make(chan struct{}), made: uint64(len(prefix)), limit: engine.NewLimit(req, len(prefix), 1)}
	select {
	case e.opened <- s:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *device) run(ctx context.Context) {
	var seats []*seat
	for ctx.Err() == nil {
		if len(seats) == 0 {
			select {
			case s := <-e.opened:
				seats = append(seats, e.prefill(ctx, s))
			case <-ctx.Done():
				return
			}
		}
		for range len(e.opened) {
			seats = append(seats, e.prefill(ctx, <-e.opened))
		}
		e.work(ctx, stepTime+time.Duration(len(seats))*seatTime)
		taken := seats[:0]
		for _, s := range seats {
			if s.offer() {
				taken = append(taken, s)
			}
		}
		seats = taken
	}
}

// prefill works through a prompt; that gives the first token.
func (e *device) prefill(ctx context.Context, s *seat) *seat {
	e.work(ctx, prefillTime)
	s.offer()
	return s
}

func (e *device) work(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d * time.Duration(e.Slow)):
	case <-ctx.Done():
	}
}

// seat is a generation.
type seat struct {
	token chan struct{} // capacity 1: the next token is there
	left  chan struct{} // closed when the generation is
	made  uint64
	limit engine.Limit
	text  []byte
}

// offer gives the generation its next token, unless it has not taken the one before. It reports whether it is still there.
func (s *seat) offer() bool {
	select {
	case <-s.left:
		return false
	case s.token <- struct{}{}:
	default:
	}
	return true
}

func (s *seat) Next(ctx context.Context) (engine.Chunk, error) {
	if err := s.limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	select {
	case <-s.token:
	case <-ctx.Done():
		return engine.Chunk{}, ctx.Err()
	}
	s.made++
	s.text = appendText(s.text[:0], time.Now().UnixNano(), s.made)
	return engine.Chunk{Text: s.text}, nil
}

func (s *seat) Close() error {
	close(s.left)
	return nil
}
