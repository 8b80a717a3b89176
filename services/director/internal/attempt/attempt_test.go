package attempt_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// newAttempt returns one in epoch 2, and what its owner was told.
func newAttempt() (*attempt.Attempt, *[]any) {
	told := &[]any{}
	s := &attempt.Stream{
		ID: 7, Log: stream.New(stream.Config{MaxBytes: 100, MaxTokens: 100, Window: 10}, &clock.StallProof{}, func(stream.Notice) {}),
		Post: func(event any) { *told = append(*told, event) },
	}
	return attempt.New(s, nil, nil, 2), told
}

// TestBrokenWorkersCostNothing has a worker say the same by the thousand: its owner is told once.
func TestBrokenWorkersCostNothing(t *testing.T) {
	a, told := newAttempt()
	a.Log.Expect(2)
	for range 10_000 {
		a.Begun(&wirepb.Begin{Epoch: 2})
		a.Prepared(&wirepb.Prepared{Epoch: 2, Sequence: 1})
		a.Captured(&wirepb.Captured{Epoch: 2, Capture: 1})
		a.Refused(&wirepb.Refused{Epoch: 2, Code: string(wire.CodeCapacity)})
		a.Ended(&wirepb.End{Epoch: 2})
		a.Failed(&wirepb.Fail{Epoch: 2})
	}
	if len(*told) != 4 {
		t.Errorf("the owner was told %d times: %v", len(*told), *told)
	}
	if f, ok := (*told)[3].(attempt.Failed); !ok || !f.Declined || f.Err.Code != wire.CodeCapacity {
		t.Errorf("its last word is %+v", (*told)[3])
	}
}

// TestOtherEpochs has a worker speak of an epoch that is not the attempt's.
func TestOtherEpochs(t *testing.T) {
	a, told := newAttempt()
	a.Log.Expect(2)
	for _, epoch := range []uint64{0, 1, 3} {
		a.Begun(&wirepb.Begin{Epoch: epoch})
		a.Prepared(&wirepb.Prepared{Epoch: epoch})
		a.Captured(&wirepb.Captured{Epoch: epoch})
		a.Refused(&wirepb.Refused{Epoch: epoch})
		a.Ended(&wirepb.End{Epoch: epoch})
		a.Failed(&wirepb.Fail{Epoch: epoch})
	}
	if len(*told) != 0 {
		t.Errorf("the owner was told %v", *told)
	}
}

// TestAnswersOutOfOrder has a worker answer a newer request for the engine's state, and then an older one, before the
// owner looks.
func TestAnswersOutOfOrder(t *testing.T) {
	a, told := newAttempt()
	for _, capture := range []uint64{1, 3, 2} {
		a.Captured(&wirepb.Captured{Epoch: 2, Capture: capture})
	}
	if m := a.TakeCaptured(); m.GetCapture() != 3 || len(*told) != 1 {
		t.Errorf("the owner is shown the answer to request %d, and was told %d times", m.GetCapture(), len(*told))
	}
	a.Captured(&wirepb.Captured{Epoch: 2, Capture: 2}) // what was taken does not count any more
	if m := a.TakeCaptured(); m.GetCapture() != 2 || len(*told) != 2 {
		t.Errorf("then %v, told %d times", m, len(*told))
	}
}

// pushes counts.
type pushes int

func (p *pushes) Push() { *p++ }

// TestFirstTokens has an attempt say once, until it is flushed, that it has to be.
func TestFirstTokens(t *testing.T) {
	var pushed pushes
	s := &attempt.Stream{
		ID: 7, Leg: &pushed, Post: func(any) {},
		Log: stream.New(stream.Config{MaxBytes: 100, MaxTokens: 100, Window: 10}, &clock.StallProof{}, func(stream.Notice) {}),
	}
	a := attempt.New(s, nil, nil, 2)
	a.Log.Expect(2)
	a.Log.Begun(2, func() {})
	var first []bool
	for sequence := uint64(1); sequence <= 4; sequence++ {
		first = append(first, a.Token(wire.Chunk{Epoch: 2, Sequence: sequence, Text: []byte("x")}, time.Now()))
		if sequence == 2 {
			a.Flush()
		}
	}
	if fmt.Sprint(first) != "[true false true false]" || pushed != 1 {
		t.Errorf("first: %v; pushed %d times", first, pushed)
	}
}

// TestBegunComesBeforeItsTokens has a worker say where it begins on one stream, and send a token on another in that
// very moment: its owner hears of the beginning first, so that no token counts before the prefix has been compared.
func TestBegunComesBeforeItsTokens(t *testing.T) {
	var mu sync.Mutex
	var told []string
	tell := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, what)
	}
	var readers sync.WaitGroup
	var a *attempt.Attempt
	s := &attempt.Stream{ID: 7, Post: func(any) {
		readers.Go(func() { a.Token(wire.Chunk{Epoch: 2, Sequence: 1, Text: []byte("x")}, time.Now()) })
		for range 10_000 { // time for the token to overtake, if anything lets it
			runtime.Gosched()
		}
		tell("begun")
	}}
	s.Log = stream.New(stream.Config{MaxBytes: 100, MaxTokens: 100, Window: 10}, &clock.StallProof{}, func(stream.Notice) { tell("first") })
	a = attempt.New(s, nil, nil, 2)
	a.Log.Expect(2)
	a.Begun(&wirepb.Begin{Epoch: 2})
	readers.Wait()
	if len(told) != 2 || told[0] != "begun" {
		t.Errorf("the owner was told %v", told)
	}
}
