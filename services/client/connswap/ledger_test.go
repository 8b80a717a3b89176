package connswap

import (
	"bytes"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Whatever a director sends, what the ledger accepts keeps the promises.
func FuzzLedger(f *testing.F) {
	story := wire.Append(nil, &wirepb.Assigned{Worker: "a", Epoch: 1})
	story = wire.AppendChunk(story, wire.Chunk{Epoch: 1, Sequence: 1, Text: []byte("x")})
	story = wire.Append(story, &wirepb.Waiting{Reason: "none", TimeoutMs: 1 << 63})
	story = wire.Append(story, &wirepb.Recovering{Worker: "b", At: 1, Of: 2})
	story = wire.Append(story, &wirepb.Swapped{FromWorker: "a", ToWorker: "b", Epoch: 2, LastSequence: 1})
	story = wire.AppendChunk(story, wire.Chunk{Epoch: 2, Sequence: 2, Text: []byte("y")})
	digest := session.DigestOf([]byte("x"), []byte("y"))
	f.Add(wire.Append(story, &wirepb.Done{Tokens: 2, Digest: digest[:]}))
	f.Add(wire.Append(story, &wirepb.Done{Tokens: 3}))
	f.Add(wire.Append(nil, wire.Errorf(CodeLimit, "enough").Proto()))
	f.Fuzz(func(t *testing.T, sent []byte) {
		var l ledger
		frames := wire.NewReader(bytes.NewReader(sent), frameLimit)
		for {
			frame, err := frames.Next()
			if err != nil {
				return
			}
			before, digest := l, l.digest.Digest()
			event, err := l.accept(frame)
			if err != nil {
				return
			}
			holds(t, before, digest, event, l)
		}
	})
}

func holds(t *testing.T, before ledger, digestBefore Digest, event Event, after ledger) {
	t.Helper()
	switch e := event.(type) {
	case tokenRead:
		if e := after.token; e.Sequence != before.sequence+1 || e.Epoch != before.epoch || e.Epoch == 0 || len(e.Text) > wire.MaxChunk {
			t.Fatalf("accepted %+v after %+v", e, before)
		}
	case Assigned:
		if e.Epoch <= before.epoch || before.sequence > 0 {
			t.Fatalf("accepted %+v after %+v", e, before)
		}
	case *Swapped:
		if e.Epoch <= before.epoch || before.epoch == 0 || e.Sequence != before.sequence {
			t.Fatalf("accepted %+v after %+v", e, before)
		}
	case Done:
		if e.Tokens != before.sequence || e.Digest != digestBefore {
			t.Fatalf("accepted %+v after %+v", e, before)
		}
	case Waiting:
		if e.Timeout < 0 {
			t.Fatalf("accepted %+v", e)
		}
	case failed, Recovering: // an engine's progress is a number of its own; below: it changes nothing
	default:
		t.Fatalf("accepted a %T", event)
	}
	if _, ok := event.(tokenRead); !ok && (after.sequence != before.sequence || after.digest.Digest() != digestBefore) {
		t.Fatalf("%T changed %+v to %+v", event, before, after)
	}
}

func TestRhythm(t *testing.T) {
	const ms = time.Millisecond
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	after := func(d time.Duration) time.Time { now = now.Add(d); return now }
	var r rhythm
	if r.usual() != 0 || r.pause(now) != 0 {
		t.Error("there is a rhythm before the first token")
	}
	for range 100 {
		r.beat(after(10 * ms))
	}
	r.beat(after(time.Minute)) // a pause that is no swap
	if got := r.usual(); got != 10*ms {
		t.Errorf("usual is %v", got)
	}
	if got := r.pause(after(500 * ms)); got != 500*ms {
		t.Errorf("pause is %v", got)
	}
	for range len(r.recent) {
		r.beat(after(20 * ms))
	}
	if got := r.usual(); got != 20*ms {
		t.Errorf("usual is %v at another pace", got)
	}
}
