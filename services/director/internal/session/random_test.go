package session_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

var plays = flag.Uint64("plays", 100, "how many random plays TestRandom has")

// TestRandom has workers, an operator and a client do what they may, and what they may not, in any order and often
// before the owner looks. Whatever happens, the client reads the text from its first token to its last, once, in epochs
// that rise; it is told how the stream ends; and nothing is kept.
func TestRandom(t *testing.T) {
	for seed := range *plays {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			cfg := func(c *session.Config) {
				c.MaxSwapsPerMinute, c.MaxWorkerDeaths, c.Handover.WorkerWait, c.ClientStall = 1000, 1000, time.Hour, time.Hour
				c.Handover.FirstTokenTimeout, c.Tokens.TokenMin, c.Tokens.FirstToken = 2*time.Second, time.Second, 2*time.Second
				c.Checkpoint.Interval = time.Duration(random.IntN(3)) * time.Second
			}
			inPlay(t, script{cfg: cfg, tokens: 40, along: seed%3 == 0}, func(p *play) {
				c := &chance{play: p, Rand: random, length: 40 - 5*random.Uint64N(2), stateful: random.IntN(2) == 0}
				c.perform()
			})
		})
	}
}

// chance decides what happens.
type chance struct {
	*play
	*rand.Rand
	length   uint64 // of the text
	stateful bool
	workers  []*player
	named    int
	reads    bool   // the client does
	read     uint64 // last token that it has read,
	epoch    uint64 // its epoch
	over     bool   // and it was told the end
}

// player is a worker that knows its part, and does not always keep to it.
type player struct {
	*actor
	epoch, next, credit uint64 // of the stream that it has; epoch 0 if it has none
	begun               bool
	standby, has        uint64 // epoch of the stream that it may get, and the tokens that it has of that
	owes                bool   // an answer as a standby
	capture             uint64 // that it was asked for
}

func (c *chance) perform() {
	c.reads = true
	for range 150 {
		if c.IntN(4) > 0 {
			c.happens()
		} else {
			release := c.hold()
			for range 1 + c.IntN(4) {
				c.happens()
			}
			release()
		}
		time.Sleep(time.Duration(c.IntN(300)) * time.Millisecond)
		c.check()
		if c.s.Snapshot().Ended != nil {
			break
		}
	}
	if !c.reads {
		c.client.Resume()
	}
	for n := 0; !c.over; n++ {
		if n == 300 {
			c.Fatalf("the stream does not end: %+v, %+v", c.s.Snapshot(), c.s.Swap())
		}
		if len(c.workers) == 0 {
			c.enters()
		}
		for _, w := range c.workers {
			w.plays(c, false)
		}
		time.Sleep(100 * time.Millisecond)
		c.client.Wake()
		c.check()
	}
	if s := c.s.Snapshot(); s.State != session.Done || c.read != c.length {
		c.Errorf("the client has %d of %d tokens of %+v", c.read, c.length, s)
	}
	c.end()
	if c.keeper.kept {
		c.Error("a state is kept")
	}
}

// happens has one thing happen.
func (c *chance) happens() {
	n := c.IntN(100)
	switch {
	case n < 8 && len(c.workers) < 4:
		c.enters()
	case n < 12:
		c.s.Decide(n%2 == 0, "no", func(error) {})
	case n < 20:
		c.rollBack = c.s.Initiate(handover.Plan{Confirm: c.IntN(3) == 0, Done: func(migration.Record) {}})
	case n < 22 && c.rollBack != nil:
		c.rollBack("given up")
	case n < 26:
		if c.reads = !c.reads; c.reads {
			c.client.Resume()
		} else {
			c.client.Stall()
		}
	case n < 29 && c.keeper.done != nil:
		done := c.keeper.done
		c.keeper.done = nil
		c.keeper.kept = true
		done(c.s.Snapshot().Sequence, nil)
	case n < 35:
		time.Sleep(time.Duration(c.IntN(3000)) * time.Millisecond)
		c.client.Wake()
	case len(c.workers) > 0:
		i := c.IntN(len(c.workers))
		if !c.workers[i].plays(c, true) {
			c.workers = append(c.workers[:i], c.workers[i+1:]...)
		}
	}
}

func (c *chance) enters() {
	c.named++
	w := c.worker(fmt.Sprintf("w%d", c.named), func(p *link.Peer) { p.Models[0].Stateful = c.stateful })
	c.workers = append(c.workers, &player{actor: w})
}

// plays has the worker go on, or do something else if it may, and reports whether it still lives.
func (w *player) plays(c *chance, wild bool) bool {
	w.listens()
	n := 1000
	if wild {
		n = c.IntN(100)
	}
	switch {
	case n < 3:
		w.Lose(link.CauseTether)
		return false
	case n < 5:
		w.epoch, w.standby = 0, 0
		_ = w.Report(&wirepb.WorkerStatus{Failed: true, Available: n == 4})
		_ = w.Report(&wirepb.WorkerStatus{Available: true})
	case n < 10 && w.epoch+w.standby > 0:
		m := &wirepb.Refused{Session: 7, Epoch: max(w.epoch, w.standby), Code: string([]wire.Code{wire.CodeCapacity, wire.CodeDiverged, wire.CodeTokenExpired}[c.IntN(3)])}
		w.epoch, w.standby = 0, 0
		_ = w.Report(m)
	case n < 12 && w.epoch > 0:
		_ = w.Say(wire.Append(nil, &wirepb.Fail{Session: 7, Epoch: w.epoch, Code: string([]wire.Code{wire.CodeEngine, wire.CodeDiverged, wire.CodeUnavailable}[c.IntN(3)])}))
	case n < 14 && w.standby > 0:
		_ = w.Say(wire.Append(nil, &wirepb.Fail{Session: 7, Epoch: w.standby, Code: string(wire.CodeDiverged)}))
	case n < 17 && w.epoch > 0:
		_ = w.Say([][]byte{frames(w.epoch, w.next+1, w.next+1), diverged(w.epoch, w.next), endsEarly(w.epoch, w.next), frames(w.epoch, w.credit+1, w.credit+1)}[c.IntN(4)])
		w.begun = w.begun || c.IntN(2) == 0
	case w.capture > 0 && n%2 == 0:
		_ = w.Report(&wirepb.Captured{Session: 7, Epoch: w.epoch, Capture: w.capture, Sequence: w.next - 1})
		w.capture = 0
	case w.owes:
		w.owes = false
		_ = w.Report(&wirepb.Prepared{Session: 7, Epoch: w.standby, Sequence: w.has})
	case w.epoch > 0:
		_ = w.Say(w.goesOn(c))
	}
	return true
}

// endsEarly is the word of a worker that lacks tokens of which it knows nothing.
func endsEarly(epoch, next uint64) []byte {
	return wire.Append(nil, &wirepb.End{Session: 7, Epoch: epoch, FinishReason: "stop", Tokens: next + 3, Digest: digest(next - 1)})
}

// goesOn is what the worker says as it should.
func (w *player) goesOn(c *chance) (b []byte) {
	if !w.begun {
		w.begun = true
		b = append(b, begins(w.epoch, w.next)...)
		if c.IntN(3) == 0 {
			return b
		}
	}
	if last := min(w.credit, c.length, w.next+c.Uint64N(4)); last >= w.next {
		b = append(b, frames(w.epoch, w.next, last)...)
		w.next = last + 1
	}
	if w.next > c.length && c.IntN(3) > 0 {
		b = append(b, ends(w.epoch, c.length)...)
		w.epoch = 0
	}
	return b
}

// listens takes what the director has said.
func (w *player) listens() {
	all, err := w.Received()
	if err != nil {
		w.play.Fatal(err)
	}
	for _, m := range all {
		switch m := m.(type) {
		case *wirepb.Attach:
			after := uint64(len(m.GetPrefix().GetLengths()))
			if m.GetStandby() {
				w.standby, w.has, w.owes = m.GetEpoch(), after, true
			} else {
				w.epoch, w.next, w.credit, w.begun, w.capture = m.GetEpoch(), after+1, m.GetCredit(), false, 0
			}
		case *wirepb.Feed:
			w.has, w.owes = m.GetFirstSequence()+uint64(len(m.GetLengths()))-1, true
		case *wirepb.Fetch:
			w.has, w.owes = max(w.has, m.GetSequence()), true
		case *wirepb.Pivot:
			w.epoch, w.next, w.credit, w.begun, w.standby, w.owes = w.standby, m.GetCut()+1, m.GetCredit(), false, 0, false
		case *wirepb.Capture:
			w.capture = m.GetCapture()
		case *wirepb.Cancel:
			if m.GetEpoch() == w.epoch {
				w.epoch = 0
			}
			if m.GetEpoch() == w.standby {
				w.standby, w.owes = 0, false
			}
		case *wirepb.Credit:
			for _, g := range m.GetGrants() {
				if g.GetEpoch() == w.epoch {
					w.credit = max(w.credit, g.GetSequence())
				}
			}
		}
	}
}

// check fails unless the client has read what follows.
func (c *chance) check() {
	synctest.Wait()
	r := wire.NewReader(bytes.NewReader(c.client.Read()), wire.MaxControl)
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			c.Fatal(err)
		}
		if f.Type == wire.TypeToken {
			t, err := wire.ParseChunk(f)
			if err != nil || t.Sequence != c.read+1 || !bytes.Equal(t.Text, text(t.Sequence)) || t.Epoch != c.epoch || c.over {
				c.Fatalf("token %d of epoch %d, after %d of %d: %v", t.Sequence, t.Epoch, c.read, c.epoch, err)
			}
			c.read = t.Sequence
			continue
		}
		m, err := wire.Decode(f)
		if err != nil {
			c.Fatal(err)
		}
		epoch := c.epoch
		switch m := m.(type) {
		case *wirepb.Assigned:
			epoch = m.GetEpoch()
		case *wirepb.Swapped:
			if epoch = m.GetEpoch(); m.GetLastSequence() != c.read {
				c.Errorf("after token %d: %v", c.read, m)
			}
		case *wirepb.Done:
			c.over = true
			if m.GetTokens() != c.read || !bytes.Equal(m.GetDigest(), digest(c.read)) {
				c.Errorf("after token %d: %v", c.read, m)
			}
		case *wirepb.Error:
			c.over = true
		case *wirepb.Waiting:
			continue
		}
		if epoch < c.epoch || epoch == c.epoch && !c.over {
			c.Errorf("in epoch %d: %v", c.epoch, m)
		}
		c.epoch = epoch
	}
}
