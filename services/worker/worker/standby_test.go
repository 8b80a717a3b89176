package worker_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// standby opens a link, and on it a standby in epoch 2 with the first tokens of session 1, up to maxTokens.
func (b *bench) standby(t *testing.T, p *fakedirector.Planner, prefix [][]byte, maxTokens uint32) *fakedirector.Link {
	t.Helper()
	l := p.Open(t, b.World, b.from, userAddr)
	m := attach(1, 2, maxTokens)
	m.Prefix = prefixOf(prefix)
	l.Send(t, p.Standby(t, m, "worker-a"))
	prepared(t, l, 1, 2, uint64(len(prefix)))
	return l
}

// The text goes on as if there had been one worker, wherever the prefix ends, however the rest comes, and wherever the
// cut is made.
func TestStandbyTakesOver(t *testing.T) {
	const length = 50
	ways := map[string]struct {
		prefix int
		feeds  []int // tokens in each
		cut    int
	}{
		"before the first token": {0, nil, 0},
		"all at once":            {0, nil, 26},
		"with the prefix":        {10, nil, 10},
		"with the prefix and one": {
			10, nil, 11,
		},
		"fed":                  {10, []int{5, 1, 7}, 25},
		"fed nothing":          {10, []int{0, 0}, 10},
		"fed from the start":   {0, []int{1, 20}, 21},
		"after the last token": {10, []int{5}, length},
	}
	for _, name := range []string{"markov", "counter"} {
		cfg := planned(name)
		whole := undisturbed(t, cfg, length)
		for how, way := range ways {
			t.Run(name+" "+how, func(t *testing.T) {
				run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
					l := b.standby(t, fakedirector.NewPlanner("one"), whole[:way.prefix], length)
					silent(t, l, 10*time.Second)
					fed := way.prefix
					for _, n := range way.feeds {
						l.Send(t, fakedirector.Feed(1, 2, uint64(fed)+1, whole[fed:fed+n]...))
						fed += n
						prepared(t, l, 1, 2, uint64(fed))
						silent(t, l, time.Second)
					}
					l.Send(t, fakedirector.Pivot(1, 2, fed, whole[:way.cut]))
					remaining, end := stream(t, l, 1, 2, whole[:way.cut])
					sameText(t, remaining, whole[way.cut:])
					if end.GetFinishReason() != "length" {
						t.Errorf("got %v", end)
					}
					b.idle(t, mgmtAddr)
					l.Close()
				})
			})
		}
	}
}

// A session with a state moves while its worker generates.
func TestStandbyTakesOverAState(t *testing.T) {
	const length = 60
	cfg := planned("stateful")
	cfg.TokenInterval = 100 * time.Millisecond
	whole := undisturbed(t, cfg, length)
	source, target := newSpy(t, cfg), newSpy(t, cfg)
	run(t, cfg, worker.Deps{Engine: source}, func(t *testing.T, b *bench) {
		b.second(t, cfg, worker.Deps{Engine: target})
		p := fakedirector.NewPlanner("one")
		la, lb := p.Open(t, b.World, b.from, userAddr), p.Open(t, b.World, b.from, otherUserAddr)
		var tokens [][]byte
		la.Send(t, attach(1, 1, length))
		hearTokens(t, la, &tokens, 10)
		la.Send(t, &wirepb.Capture{Session: 1, Epoch: 1, Capture: 1, KeepMs: 60_000})
		m := hear[*wirepb.Captured](t, la, &tokens)
		if m.GetCode() != "" || m.GetCapture() != 1 || m.GetSize() != uint64(cfg.StateBytes) || m.GetSequence() < 10 {
			t.Fatalf("got %v", m)
		}

		next := attach(1, 2, length)
		next.Prefix = prefixOf(tokens)
		lb.Send(t, p.Standby(t, next, "worker-b"))
		fed := len(tokens)
		prepared(t, lb, 1, 2, uint64(fed))
		lb.Send(t, p.Fetch(t, 1, 2, m.GetSequence(), "worker-a", mgmtAddr, "worker-b"))
		prepared(t, lb, 1, 2, uint64(fed))
		if held := b.status(t).SnapshotBytes; held != 0 {
			t.Errorf("the source still has %d bytes of the snapshot that it gave away", held)
		}
		for range 3 { // it follows the source, which has gone on all the time
			hearTokens(t, la, &tokens, len(tokens)+5)
			lb.Send(t, fakedirector.Feed(1, 2, uint64(fed)+1, tokens[fed:]...))
			fed = len(tokens)
			prepared(t, lb, 1, 2, uint64(fed))
		}
		hearTokens(t, la, &tokens, len(tokens)+2)
		cut := len(tokens)
		lb.Send(t, fakedirector.Pivot(1, 2, fed, tokens))
		la.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		remaining, _ := stream(t, lb, 1, 2, tokens)
		sameText(t, append(tokens[:cut:cut], remaining...), whole)
		target.began(t, 0, 1)
		source.began(t, 1, 0)
		b.idle(t, mgmtAddr)
		b.idle(t, otherMgmtAddr)
		la.Close()
		lb.Close()
	})
	if source.open.Load() != 0 || target.open.Load() != 0 {
		t.Errorf("generations left open: %d and %d", source.open.Load(), target.open.Load())
	}
}

// The state may be beyond what the target was told: a token is captured as soon as it is made.
func TestStandbyWithAStateThatIsAhead(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 30)
	for name, c := range map[string]struct {
		cut  int
		want wire.Code
	}{"cut after it": {14, ""}, "cut at it": {12, ""}, "cut before it": {11, wire.CodeDiverged}} {
		t.Run(name, func(t *testing.T) {
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				b.mgmt.Offer(t, p, 1, captured(t, cfg, 12, 12))
				l := b.standby(t, p, whole[:8], 30)
				l.Send(t, p.AtDirector(t, 1, 2, 12))
				prepared(t, l, 1, 2, 8)
				l.Send(t, fakedirector.Feed(1, 2, 9, whole[8:10]...))
				prepared(t, l, 1, 2, 10)
				l.Send(t, fakedirector.Pivot(1, 2, 10, whole[:c.cut]))
				if c.want != "" {
					failed(t, l, 1, 2, c.want)
				} else {
					remaining, _ := stream(t, l, 1, 2, whole[:c.cut])
					sameText(t, remaining, whole[c.cut:])
				}
				l.Close()
			})
		})
	}
}

func TestPivotGivesCredit(t *testing.T) {
	cfg := planned("markov")
	whole := undisturbed(t, cfg, 20)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l := b.standby(t, fakedirector.NewPlanner("one"), whole[:5], 20)
		l.Send(t, &wirepb.Credit{Grants: []*wirepb.Credit_Grant{{Session: 1, Epoch: 2, Sequence: 7}}}) // changes nothing yet
		silent(t, l, time.Second)
		pivot := fakedirector.Pivot(1, 2, 5, whole[:6])
		pivot.Credit = 9
		l.Send(t, pivot)
		fakedirector.Next[*wirepb.Begin](t, l)
		if remaining := l.Remaining(time.Minute); len(remaining) != 3 {
			t.Errorf("%d tokens on a credit for 3", len(remaining))
		}
		l.Send(t, &wirepb.Credit{Grants: []*wirepb.Credit_Grant{{Session: 1, Epoch: 2, Sequence: 20}}})
		if remaining := l.Remaining(time.Minute); len(remaining) != 12 { // and the End
			t.Errorf("got %v", remaining)
		}
		l.Close()
	})
}

// What does not fit ends the standby, and the director knows why. Its place is free.
func TestStandbyDiverges(t *testing.T) {
	cfg := planned("markov")
	cfg.Capacity = 1
	whole := undisturbed(t, cfg, 30)
	feed := func(first uint64, tokens ...[]byte) *wirepb.Feed { return fakedirector.Feed(1, 2, first, tokens...) }
	pivot := func(change func(m *wirepb.Pivot)) *wirepb.Pivot {
		m := fakedirector.Pivot(1, 2, 10, whole[:15])
		change(m)
		return m
	}
	wrong := func(at int) [][]byte { // whole, but one token
		tokens := append([][]byte(nil), whole...)
		tokens[at] = []byte(" nonsense")
		return tokens
	}
	merged := append([][]byte{bytes.Join(whole[10:12], nil)}, whole[12:15]...) // the same text, cut elsewhere
	cases := map[string]struct {
		order wire.Message
		want  wire.Code
	}{
		"fed with a gap":               {feed(12, whole[11:15]...), wire.CodeDiverged},
		"fed again":                    {feed(10, whole[9:15]...), wire.CodeDiverged},
		"fed from nowhere":             {feed(0, whole[10:15]...), wire.CodeDiverged},
		"fed from afar":                {feed(1<<64-1, whole[10:15]...), wire.CodeDiverged},
		"fed another token":            {feed(11, wrong(12)[10:15]...), wire.CodeDiverged},
		"fed tokens cut elsewhere":     {feed(11, merged...), wire.CodeDiverged},
		"fed text beyond the lengths":  {&wirepb.Feed{Session: 1, Epoch: 2, FirstSequence: 11, Text: []byte("x")}, wire.CodeInvalid},
		"fed lengths beyond the text":  {&wirepb.Feed{Session: 1, Epoch: 2, FirstSequence: 11, Lengths: []uint32{1}}, wire.CodeInvalid},
		"fed a token out of all range": {feed(11, make([]byte, wire.MaxChunk+1)), wire.CodeInvalid},
		"cut too late":                 {pivot(func(m *wirepb.Pivot) { m.Cut++ }), wire.CodeDiverged},
		"cut too early":                {pivot(func(m *wirepb.Pivot) { m.Cut-- }), wire.CodeDiverged},
		"no cut":                       {pivot(func(m *wirepb.Pivot) { m.Cut = 0 }), wire.CodeDiverged},
		"another digest":               {pivot(func(m *wirepb.Pivot) { m.Digest[0]++ }), wire.CodeDiverged},
		"a short digest":               {pivot(func(m *wirepb.Pivot) { m.Digest = m.Digest[:31] }), wire.CodeDiverged},
		"no digest":                    {pivot(func(m *wirepb.Pivot) { m.Digest = nil }), wire.CodeDiverged},
		"a rest with a gap":            {pivot(func(m *wirepb.Pivot) { m.Rest = feed(12, whole[11:15]...) }), wire.CodeDiverged},
		"an empty rest that is none":   {pivot(func(m *wirepb.Pivot) { m.Rest = feed(0) }), wire.CodeDiverged},
		"less than the rest":           {pivot(func(m *wirepb.Pivot) { m.Rest = feed(11, whole[10:14]...) }), wire.CodeDiverged},
		"a malformed rest":             {pivot(func(m *wirepb.Pivot) { m.Rest.Lengths = nil }), wire.CodeInvalid},
		"a rest that is another text":  {fakedirector.Pivot(1, 2, 10, wrong(12)[:15]), wire.CodeDiverged},
		"a state for whoever has none": {&wirepb.Fetch{Session: 1, Epoch: 2, Addr: mgmtAddr}, wire.CodeProtocol},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				l := b.standby(t, fakedirector.NewPlanner("one"), whole[:10], 30)
				l.Send(t, c.order)
				failed(t, l, 1, 2, c.want)
				silent(t, l, 10*time.Second)
				b.idle(t, mgmtAddr)
				l.Send(t, attach(2, 1, 3))
				stream(t, l, 2, 1, nil)
				l.Close()
			})
		})
	}
}

func TestStandbyIsFedBeyondTheEnd(t *testing.T) {
	word := []byte("word ")
	run(t, settings(), worker.Deps{Engine: script{next: failAt(3, errFinished)}}, func(t *testing.T, b *bench) {
		l := b.standby(t, fakedirector.NewPlanner("one"), nil, 0)
		l.Send(t, fakedirector.Feed(1, 2, 1, word, word, word))
		prepared(t, l, 1, 2, 3)
		l.Send(t, fakedirector.Feed(1, 2, 4, word))
		failed(t, l, 1, 2, wire.CodeDiverged)
		l.Close()
	})
}

// A standby without its state is told the tokens all the same, but cannot take over.
func TestPivotBeforeTheState(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 20)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l := b.standby(t, fakedirector.NewPlanner("one"), whole[:5], 20)
		l.Send(t, fakedirector.Feed(1, 2, 6, whole[5:10]...))
		prepared(t, l, 1, 2, 10)
		l.Send(t, fakedirector.Pivot(1, 2, 10, whole[:10]))
		failed(t, l, 1, 2, wire.CodeProtocol)
		b.idle(t, mgmtAddr)
		l.Close()
	})
}

// badStates are snapshots of no use to a session of which the director knows 12 tokens, and says that the state is that
// after token 10.
var badStates = map[string]struct {
	snapshot func(t *testing.T, cfg config.Worker) *transfer.Snapshot // nil for none
	most     int                                                      // CONNECTION_SWAP_MAX_STATE_BYTES
	want     wire.Code                                                // for a standby
}{
	"none":      {nil, wire.MaxState, wire.CodeStateGone},
	"too large": {snapshotAfter(10, 10), 300<<10 - 1, wire.CodeLimit},
	"of another engine": {func(t *testing.T, cfg config.Worker) *transfer.Snapshot {
		cfg.StateBytes++
		return captured(t, cfg, 10, 10)
	}, wire.MaxState, wire.CodeEngine},
	"empty": {func(*testing.T, config.Worker) *transfer.Snapshot {
		return must(transfer.Compress(10, nil))
	}, wire.MaxState, wire.CodeEngine},
	"later than was said":   {snapshotAfter(13, 13), wire.MaxState, wire.CodeStateGone},
	"of no time":            {snapshotAfter(10, 1<<63+10), wire.MaxState, wire.CodeStateGone},
	"behind what it says":   {snapshotAfter(9, 10), wire.MaxState, wire.CodeDiverged},
	"ahead of what it says": {snapshotAfter(11, 10), wire.MaxState, wire.CodeDiverged},
}

// snapshotAfter is one of the state after n tokens that says it is after said.
func snapshotAfter(n int, said uint64) func(t *testing.T, cfg config.Worker) *transfer.Snapshot {
	return func(t *testing.T, cfg config.Worker) *transfer.Snapshot { return captured(t, cfg, n, said) }
}

// A state that is of no use ends a standby before the session depends on it.
func TestStandbyWithABadState(t *testing.T) {
	cfg := planned("stateful")
	cfg.Capacity = 1
	whole := undisturbed(t, cfg, 30)
	for name, c := range badStates {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			cfg.MaxStateBytes = c.most
			spy := newSpy(t, cfg)
			run(t, cfg, worker.Deps{Engine: spy}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				b.mgmt.Offer(t, p, 2, captured(t, cfg, 10, 10)) // another session's
				if c.snapshot != nil {
					b.mgmt.Offer(t, p, 1, c.snapshot(t, cfg))
				}
				l := b.standby(t, p, whole[:12], 30)
				l.Send(t, p.AtDirector(t, 1, 2, 10))
				failed(t, l, 1, 2, c.want)
				silent(t, l, 10*time.Second)
				l.Send(t, attach(2, 1, 3)) // the place is free
				stream(t, l, 2, 1, nil)
				l.Close()
			})
			if n := spy.open.Load(); n != 0 {
				t.Errorf("%d generations were not closed", n)
			}
		})
	}
}

func TestStandbyWithAStateOutOfReach(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		b.Net.Host("worker-b").Isolate()
		l := b.standby(t, p, nil, 30)
		m := p.Fetch(t, 1, 2, 10, "worker-b", otherMgmtAddr, "worker-a")
		m.TimeoutMs = 3_000
		start := time.Now()
		l.Send(t, m)
		failed(t, l, 1, 2, wire.CodeStateGone)
		if took := time.Since(start).Round(100 * time.Millisecond); took != 3*time.Second {
			t.Errorf("gave up after %v", took)
		}
		l.Close()
	})
}

func TestStandbyNeedsOneState(t *testing.T) {
	cfg := planned("stateful")
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		b.mgmt.Offer(t, p, 1, captured(t, cfg, 10, 10))
		l := b.standby(t, p, nil, 30)
		l.Send(t, p.AtDirector(t, 1, 2, 10))
		prepared(t, l, 1, 2, 0)
		l.Send(t, p.AtDirector(t, 1, 2, 10))
		failed(t, l, 1, 2, wire.CodeProtocol)
		l.Close()
	})
}

// An engine that panics while it follows ends its own standby only, and its generation is closed.
func TestStandbyPanics(t *testing.T) {
	var closed atomic.Int32
	e := hooked{next: func(context.Context) ([]byte, error) { panic("ouch") }, close: func() { closed.Add(1) }}
	run(t, settings(), worker.Deps{Engine: e}, func(t *testing.T, b *bench) {
		l := b.standby(t, fakedirector.NewPlanner("one"), nil, 30)
		l.Send(t, fakedirector.Feed(1, 2, 1, []byte("word ")))
		failed(t, l, 1, 2, wire.CodeEngine)
		b.idle(t, mgmtAddr)
		l.Close()
	})
	if n := closed.Load(); n != 1 {
		t.Errorf("closed %d times", n)
	}
}

// slow is an engine that takes a second for each token, deaf to everything meanwhile.
var slow = hooked{next: func(context.Context) ([]byte, error) {
	time.Sleep(time.Second)
	return []byte("word "), nil
}}

func TestTooManyOrdersAtOnce(t *testing.T) {
	cfg := settings()
	cfg.Capacity = 1
	word := []byte("word ")
	orders := func(n uint64) (all []wire.Message) {
		for i := range n {
			all = append(all, fakedirector.Feed(1, 2, i+1, word))
		}
		return all
	}
	run(t, cfg, worker.Deps{Engine: slow}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := b.standby(t, p, nil, 0)
		l.Send(t, orders(1)...)
		time.Sleep(10 * time.Millisecond) // it works on that one
		l.Send(t, orders(5)[1:]...)
		for n := uint64(1); n <= 5; n++ {
			prepared(t, l, 1, 2, n)
		}
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 2}, p.Standby(t, attach(1, 3, 0), "worker-a"))
		prepared(t, l, 1, 3, 0)

		many := orders(6)
		for _, m := range many {
			m.(*wirepb.Feed).Epoch = 3
		}
		l.Send(t, many[0])
		time.Sleep(10 * time.Millisecond)
		l.Send(t, many[1:]...)
		refused(t, l, 1, 3, wire.CodeProtocol)
		l.Send(t, attach(2, 1, 1)) // its place is free at once
		fakedirector.Next[*wirepb.Begin](t, l)
		if tokens := only[wire.Chunk](l.Remaining(10 * time.Second)); len(tokens) != 1 {
			t.Errorf("got %v", tokens)
		}
		l.Close()
	})
}

// What was meant for a standby and comes when it is none any more changes nothing.
func TestOrdersThatComeTooLate(t *testing.T) {
	cfg := planned("markov")
	cfg.TokenInterval = 10 * time.Millisecond
	whole := undisturbed(t, cfg, 50)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := b.standby(t, p, whole[:5], 50)
		l.Send(t, fakedirector.Pivot(1, 2, 5, whole[:8]), fakedirector.Pivot(1, 2, 5, whole[:8]))
		for range 10 {
			l.Send(t, fakedirector.Feed(1, 2, 6, whole[5:8]...), fakedirector.Pivot(1, 2, 5, whole[:8]))
			time.Sleep(10 * time.Millisecond)
		}
		remaining, _ := stream(t, l, 1, 2, whole[:8])
		sameText(t, remaining, whole[8:])

		l.Send(t, attach(2, 1, 50)) // never was one
		for range 10 {
			l.Send(t, fakedirector.Feed(2, 1, 1, whole[0]), &wirepb.Fetch{Session: 2, Epoch: 1}, fakedirector.Pivot(2, 1, 0, nil))
			l.Send(t, fakedirector.Feed(2, 7, 1, whole[0]), fakedirector.Feed(77, 1, 1, whole[0]), &wirepb.Pivot{})
			time.Sleep(10 * time.Millisecond)
		}
		all, _ := stream(t, l, 2, 1, nil)
		sameText(t, all, whole)
		l.Close()
	})
}

func TestCancelOfAStandby(t *testing.T) {
	cfg := settings()
	cfg.Capacity = 1
	run(t, cfg, worker.Deps{Engine: slow}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := b.standby(t, p, nil, 0)
		l.Send(t, fakedirector.Feed(1, 2, 1, []byte("word "))) // it is in the middle of that
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 2}, fakedirector.Pivot(1, 2, 1, [][]byte{[]byte("word ")}))
		silent(t, l, 3*time.Second)
		l.Send(t, p.Standby(t, attach(2, 2, 0), "worker-a"))
		prepared(t, l, 2, 2, 0)
		l.Send(t, &wirepb.Cancel{Session: 2, Epoch: 1}) // of an epoch before: means somebody else
		l.Send(t, fakedirector.Feed(2, 2, 1, []byte("word ")))
		prepared(t, l, 2, 2, 1)
		l.Close()
	})
}

// With the standby ends what it was doing: a pull that never would.
func TestEndOfAStandbyEndsItsPull(t *testing.T) {
	ends := map[string]func(t *testing.T, l *fakedirector.Link){
		"cancel":      func(t *testing.T, l *fakedirector.Link) { l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 2}) },
		"link closed": func(_ *testing.T, l *fakedirector.Link) { l.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			cfg := planned("stateful")
			cfg.Capacity = 1
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				pulling, over := make(chan struct{}), make(chan struct{})
				b.mgmt.Give(func(_ context.Context, s mgmt.Stream, _ *wirepb.Pull) error {
					close(pulling)
					<-s.Context().Done() // the worker reads no more
					close(over)
					return nil
				})
				l := b.standby(t, p, nil, 30)
				l.Send(t, p.AtDirector(t, 1, 2, 10))
				soon(t, pulling)
				silent(t, l, 30*time.Second)
				start := time.Now()
				end(t, l)
				soon(t, over)
				if took := time.Since(start); took > 10*time.Millisecond {
					t.Errorf("the pull ended after %v", took)
				}
				b.idle(t, mgmtAddr)
				again := p.Open(t, b.World, b.from, userAddr)
				again.Send(t, attach(2, 1, 3))
				stream(t, again, 2, 1, nil)
				again.Close()
				l.Close()
			})
		})
	}
}

func TestStandbyTakesAPlace(t *testing.T) {
	cfg := settings()
	cfg.Capacity = 2
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := b.standby(t, p, nil, 30)
		m := attach(2, 1, 30)
		m.Credit = 0
		l.Send(t, m)
		fakedirector.Next[*wirepb.Begin](t, l)
		if status := b.status(t); len(status.Sessions) != 2 {
			t.Errorf("got %+v", status.Sessions)
		}
		l.Send(t, p.Standby(t, attach(3, 2, 30), "worker-a"))
		refused(t, l, 3, 2, wire.CodeCapacity)
		l.Send(t, attach(4, 1, 30))
		refused(t, l, 4, 1, wire.CodeCapacity)
		l.Send(t, fakedirector.Pivot(1, 2, 0, nil))
		stream(t, l, 1, 2, nil)
		l.Send(t, p.Standby(t, attach(3, 3, 30), "worker-a"))
		prepared(t, l, 3, 3, 0)
		l.Close()
	})
}

// A standby is fenced as other attempts are.
func TestStandbyIsFenced(t *testing.T) {
	cfg := planned("markov")
	whole := undisturbed(t, cfg, 10)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := b.standby(t, p, nil, 10)
		l.Send(t, p.Standby(t, attach(1, 2, 10), "worker-a"))
		refused(t, l, 1, 2, wire.CodeStaleEpoch)
		l.Send(t, attach(1, 1, 10))
		refused(t, l, 1, 1, wire.CodeStaleEpoch)
		l.Send(t, p.Standby(t, attach(1, 3, 10), "worker-a")) // takes the place of the older one
		prepared(t, l, 1, 3, 0)
		l.Send(t, fakedirector.Feed(1, 2, 1, whole[0]), fakedirector.Pivot(1, 2, 0, nil))
		silent(t, l, 10*time.Second)
		l.Send(t, fakedirector.Pivot(1, 3, 0, whole[:4]))
		remaining, _ := stream(t, l, 1, 3, whole[:4])
		sameText(t, remaining, whole[4:])
		l.Close()
	})
}

func TestLinkLostWhileStandingBy(t *testing.T) {
	losses := map[string]func(t *testing.T, b *bench, l *fakedirector.Link){
		"closed": func(_ *testing.T, _ *bench, l *fakedirector.Link) { l.Close() },
		"director cut off": func(_ *testing.T, b *bench, l *fakedirector.Link) {
			b.from.Isolate()
			time.Sleep(time.Minute)
			b.from.Rejoin()
			l.Close()
		},
		"protocol": func(t *testing.T, _ *bench, l *fakedirector.Link) {
			l.Send(t, &wirepb.Prepared{})
			l.Close()
		},
	}
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			cfg := planned("markov")
			cfg.Capacity = 1
			whole := undisturbed(t, cfg, 10)
			run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				l := b.standby(t, p, nil, 10)
				l.Send(t, fakedirector.Feed(1, 2, 1, whole[:3]...))
				prepared(t, l, 1, 2, 3)
				lose(t, b, l)
				time.Sleep(10 * time.Millisecond)
				b.idle(t, mgmtAddr)
				l = p.Open(t, b.World, b.from, userAddr)
				l.Send(t, fakedirector.Feed(1, 2, 4, whole[3]), fakedirector.Pivot(1, 2, 3, whole[:4])) // of the life before
				l.Send(t, p.Standby(t, attach(1, 3, 10), "worker-a"))
				prepared(t, l, 1, 3, 0)
				silent(t, l, 10*time.Second)
				l.Close()
			})
		})
	}
}

func TestStandbyOfAWorkerThatHangs(t *testing.T) {
	word := []byte("word ")
	run(t, failing("hang"), worker.Deps{Engine: slow}, func(t *testing.T, b *bench) {
		l := b.standby(t, fakedirector.NewPlanner("one"), nil, 10)
		l.Send(t, fakedirector.Feed(1, 2, 1, word, word, word))
		time.Sleep(10 * time.Millisecond) // it works on that
		b.worker.FailNow()
		time.Sleep(10 * time.Millisecond)
		l.Send(t, fakedirector.Feed(1, 2, 4, word))
		silent(t, l, 9*time.Second)
		prepared(t, l, 1, 2, 3)
		prepared(t, l, 1, 2, 4)
		l.Send(t, fakedirector.Pivot(1, 2, 4, [][]byte{word, word, word, word, word}))
		if remaining, _ := stream(t, l, 1, 2, [][]byte{word, word, word, word, word}); len(remaining) != 5 {
			t.Errorf("%d tokens", len(remaining))
		}
		l.Close()
	})
}

func TestStandbyOfAWorkerThatFails(t *testing.T) {
	run(t, failing("error"), worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := b.standby(t, p, nil, 10)
		b.worker.FailNow()
		if status := fakedirector.Next[*wirepb.WorkerStatus](t, l); !status.GetFailed() {
			t.Errorf("got %v", status)
		}
		b.idle(t, mgmtAddr)
		l.Send(t, fakedirector.Pivot(1, 2, 0, nil), p.Standby(t, attach(1, 3, 10), "worker-a"))
		refused(t, l, 1, 3, wire.CodeUnavailable)
		l.Close()
	})
}

// A bad prefix is a standby's end as it is that of others.
func TestStandbyWithABadPrefix(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := p.Open(t, b.World, b.from, userAddr)
		m := attach(1, 2, 10)
		m.Prefix = prefixOf([][]byte{[]byte("The")})
		m.Prefix.Digest[0]++
		l.Send(t, p.Standby(t, m, "worker-a"))
		refused(t, l, 1, 2, wire.CodeDiverged)
		b.idle(t, mgmtAddr)
		l.Close()
	})
}

// hooked is an engine, and its only generation, that does as told.
type hooked struct {
	next    func(ctx context.Context) ([]byte, error)
	capture func() ([]byte, error) // nil for an engine without a state
	close   func()
	limit   *engine.Limit
}

func (hooked) Name() string        { return "hooked" }
func (hooked) Fingerprint() string { return "hooked" }
func (h hooked) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	limit := engine.NewLimit(req, engine.Count(prefix), 1)
	h.limit = &limit
	if h.capture != nil {
		return capturing{h}, nil
	}
	return h, nil
}

func (h hooked) Next(ctx context.Context) (engine.Chunk, error) {
	return limited(h.limit, func() ([]byte, error) { return h.next(ctx) })
}

func (h hooked) Close() error {
	if h.close != nil {
		h.close()
	}
	return nil
}

// capturing is a generation with a state.
type capturing struct{ hooked }

func (c capturing) Capture([]byte) ([]byte, error) { return c.capture() }
