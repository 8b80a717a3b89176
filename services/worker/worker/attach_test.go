package worker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestRefusesABadPrefix(t *testing.T) {
	good := func() *wirepb.Prefix { return prefixOf([][]byte{[]byte("The"), []byte(" river")}) }
	cases := map[string]struct {
		change func(p *wirepb.Prefix)
		want   wire.Code
	}{
		"another digest":        {func(p *wirepb.Prefix) { p.Digest[0]++ }, wire.CodeDiverged},
		"another text":          {func(p *wirepb.Prefix) { p.Text[0]++ }, wire.CodeDiverged},
		"a short digest":        {func(p *wirepb.Prefix) { p.Digest = p.Digest[:31] }, wire.CodeDiverged},
		"no digest":             {func(p *wirepb.Prefix) { p.Digest = nil }, wire.CodeDiverged},
		"lengths beyond text":   {func(p *wirepb.Prefix) { p.Lengths[1]++ }, wire.CodeInvalid},
		"text beyond lengths":   {func(p *wirepb.Prefix) { p.Lengths[1]-- }, wire.CodeInvalid},
		"no lengths":            {func(p *wirepb.Prefix) { p.Lengths = nil }, wire.CodeInvalid},
		"a length out of range": {func(p *wirepb.Prefix) { p.Lengths = []uint32{1<<32 - 1} }, wire.CodeInvalid},
		"a huge token": {func(p *wirepb.Prefix) {
			p.Text, p.Lengths = make([]byte, wire.MaxChunk+1), []uint32{wire.MaxChunk + 1}
		}, wire.CodeInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
				l, _ := b.Open(t, b.from, userAddr)
				m := attach(1, 1, 5)
				m.Prefix = good()
				c.change(m.Prefix)
				l.Send(t, m)
				refused := fakedirector.Next[*wirepb.Refused](t, l)
				if wire.Code(refused.GetCode()) != c.want || refused.GetSession() != 1 || refused.GetEpoch() != 1 {
					t.Errorf("got %v, want %s", refused, c.want)
				}
				l.Send(t, attach(1, 2, 5)) // the place is free
				stream(t, l, 1, 2, nil)
				l.Close()
			})
		})
	}
}

func TestFencesWithinALink(t *testing.T) {
	cfg := settings()
	cfg.TokenInterval = time.Second
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		l.Send(t, attach(1, 5, 0))
		fakedirector.Next[*wirepb.Begin](t, l)
		fakedirector.Next[wire.Chunk](t, l)
		for _, epoch := range []uint64{5, 4} {
			l.Send(t, attach(1, epoch, 0))
			if refused := fakedirector.Next[*wirepb.Refused](t, l); refused.GetCode() != string(wire.CodeStaleEpoch) || refused.GetEpoch() != epoch {
				t.Errorf("epoch %d after 5: got %v", epoch, refused)
			}
		}
		l.Send(t, attach(1, 6, 3)) // takes the place of the older attempt
		stream(t, l, 1, 6, nil)
		if remaining := l.Remaining(10 * time.Second); len(remaining) > 0 {
			t.Errorf("the older attempt goes on: %v", remaining)
		}
		l.Close()
	})
}

func TestRefusesBeyondCapacity(t *testing.T) {
	cfg := settings()
	cfg.Capacity = 3
	cfg.TokenInterval = time.Second
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		one, _ := b.Open(t, b.from, userAddr)
		other, _ := b.Open(t, b.Net.Host("director-2"), userAddr)
		one.Send(t, attach(1, 1, 0), attach(2, 1, 0))
		other.Send(t, of("conn-2", attach(1, 1, 4))) // the same number, but another director's session
		time.Sleep(100 * time.Millisecond)
		one.Send(t, attach(3, 1, 0))
		refusals := only[*wirepb.Refused](one.Remaining(100 * time.Millisecond))
		if len(refusals) != 1 || refusals[0].GetSession() != 3 || refusals[0].GetCode() != string(wire.CodeCapacity) {
			t.Errorf("got %v", refusals)
		}

		// A higher epoch of a session that is here needs no place more.
		one.Send(t, attach(1, 2, 0))
		if refusals := only[*wirepb.Refused](one.Remaining(100 * time.Millisecond)); len(refusals) > 0 {
			t.Errorf("got %v", refusals)
		}

		// A place is free as soon as the director knows that its session has ended.
		for len(only[*wirepb.End](other.Remaining(time.Millisecond))) == 0 {
			continue
		}
		other.Send(t, attach(9, 1, 1))
		time.Sleep(100 * time.Millisecond)
		stream(t, other, 9, 1, nil)
		one.Close()
		other.Close()
	})
}

// TestMemoryHasAnEnd: what directors send has to fit; what ends gives its memory back.
func TestMemoryHasAnEnd(t *testing.T) {
	cfg := settings()
	cfg.MaxBytes, cfg.TokenInterval = 1<<20, time.Second
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		large := func(session uint64) *wirepb.Attach {
			m := attach(session, 1, 0)
			m.Request.Prompt = strings.Repeat("x", 300_000)
			return m
		}
		l.Send(t, large(1), large(2), large(3), large(4))
		refusals := only[*wirepb.Refused](l.Remaining(100 * time.Millisecond))
		if len(refusals) != 1 || refusals[0].GetSession() != 4 || refusals[0].GetCode() != string(wire.CodeCapacity) ||
			!strings.Contains(refusals[0].GetMessage(), "of 1048576 in all (CONNECTION_SWAP_WORKER_MAX_BYTES)") {
			t.Errorf("got %v", refusals)
		}
		l.Send(t, attach(5, 1, 0)) // a small one fits
		if refusals := only[*wirepb.Refused](l.Remaining(100 * time.Millisecond)); len(refusals) > 0 {
			t.Errorf("got %v", refusals)
		}
		for session := range uint64(5) {
			l.Send(t, &wirepb.Cancel{Session: session + 1, Epoch: 1})
		}
		time.Sleep(100 * time.Millisecond)
		if status := b.status(t); status.Bytes.Used != 0 || status.Bytes.Limit != 1<<20 {
			t.Errorf("got %+v", status.Bytes)
		}
		l.Close()
	})
}

// TestStandbysTakeMemory: what one is fed counts as well.
func TestStandbysTakeMemory(t *testing.T) {
	cfg := settings()
	cfg.MaxBytes = 100_000
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l := b.standby(t, fakedirector.NewPlanner("one"), nil, 30)
		feed := &wirepb.Feed{Session: 1, Epoch: 2, FirstSequence: 1}
		for range 25 {
			feed.Text, feed.Lengths = append(feed.Text, make([]byte, wire.MaxChunk)...), append(feed.Lengths, wire.MaxChunk)
		}
		l.Send(t, feed)
		if fail := fakedirector.Next[*wirepb.Fail](t, l); fail.GetCode() != string(wire.CodeCapacity) {
			t.Errorf("got %v", fail)
		}
		if held := b.status(t).Bytes.Used; held != 0 {
			t.Errorf("%d bytes are held", held)
		}
		l.Close()
	})
}

func TestCreditIsRespected(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		m := attach(1, 1, 100)
		m.Credit = 0
		l.Send(t, m)
		fakedirector.Next[*wirepb.Begin](t, l)
		grant := func(epoch, sequence uint64) {
			l.Send(t, &wirepb.Credit{Grants: []*wirepb.Credit_Grant{
				{Session: 77, Epoch: 1, Sequence: 1000}, // of nobody
				{Session: 1, Epoch: epoch, Sequence: sequence},
			}})
		}
		for _, step := range []struct {
			name            string
			epoch, sequence uint64
			want            int
		}{
			{"none yet", 1, 0, 0},
			{"ten", 1, 10, 10},
			{"the same again", 1, 10, 0},
			{"less", 1, 5, 0},
			{"of another epoch", 2, 50, 0},
			{"one more", 1, 11, 1},
		} {
			grant(step.epoch, step.sequence)
			if remaining := l.Remaining(time.Minute); len(remaining) != step.want {
				t.Errorf("%s: got %d tokens, want %d", step.name, len(remaining), step.want)
			}
		}
		grant(1, 1<<62-1)
		if remaining := l.Remaining(time.Minute); len(remaining) != 90 { // and the End
			t.Errorf("at last: got %d, want 90", len(remaining))
		}
		l.Close()
	})
}

func TestCancelStopsAtOnce(t *testing.T) {
	for _, interval := range []time.Duration{0, time.Second} {
		cfg := settings()
		cfg.TokenInterval = interval
		cfg.Capacity = 1
		run(t, cfg, worker.Deps{Engine: endless{}}, func(t *testing.T, b *bench) {
			l, _ := b.Open(t, b.from, userAddr)
			m := attach(1, 1, 0)
			m.Credit = 1000
			l.Send(t, m)
			fakedirector.Next[*wirepb.Begin](t, l)
			fakedirector.Next[wire.Chunk](t, l)
			// On the control stream in this order, so the second Attach finds the place free. Tokens of the
			// first may come only before the second begins.
			l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 2}, &wirepb.Cancel{Session: 1, Epoch: 1}, attach(3, 1, 2))
			var begun bool
			for _, event := range l.Remaining(time.Minute) {
				switch event := event.(type) {
				case *wirepb.Begin:
					begun = true
				case wire.Chunk:
					if begun && event.Session == 1 {
						t.Fatalf("interval %v: token %d after the end", interval, event.Sequence)
					}
				case *wirepb.Refused:
					t.Fatalf("interval %v: %v", interval, event)
				}
			}
			if !begun {
				t.Errorf("interval %v: the next session has no place", interval)
			}
			l.Close()
		})
	}
}

func TestCancelReachesAStuckEngine(t *testing.T) {
	stuck := &stuckEngine{closed: make(chan struct{})}
	run(t, settings(), worker.Deps{Engine: stuck}, func(t *testing.T, b *bench) {
		stuck.closed = make(chan struct{}) // of this bubble
		l, _ := b.Open(t, b.from, userAddr)
		l.Send(t, attach(1, 1, 10))
		fakedirector.Next[*wirepb.Begin](t, l)
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		start := time.Now()
		<-stuck.closed
		if took := time.Since(start); took > 10*time.Millisecond {
			t.Errorf("the generation was closed after %v", took)
		}
		l.Close()
	})
}

// An engine may be in the middle of a token, deaf to its context, when the session is taken back.
func TestNothingFollowsACancel(t *testing.T) {
	slow := script{next: func(int) ([]byte, error) {
		time.Sleep(time.Second)
		return []byte("late"), nil
	}}
	run(t, settings(), worker.Deps{Engine: slow}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		l.Send(t, attach(1, 1, 10))
		fakedirector.Next[*wirepb.Begin](t, l)
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		if remaining := l.Remaining(3 * time.Second); len(remaining) > 0 {
			t.Errorf("got %v", remaining)
		}
		l.Close()
	})
}

func TestEnginesThatFail(t *testing.T) {
	boom := errors.New("boom")
	cases := map[string]struct {
		engine engine.Engine
		tokens int
		want   string // in the message
	}{
		"at opening":     {script{open: boom}, -1, "boom"},
		"at once":        {script{next: func(int) ([]byte, error) { return nil, boom }}, 0, "boom"},
		"later":          {script{next: failAt(3, boom)}, 3, "boom"},
		"by panic":       {script{next: func(int) ([]byte, error) { panic("ouch") }}, 0, "ouch"},
		"by a big token": {script{next: func(int) ([]byte, error) { return make([]byte, wire.MaxChunk+1), nil }}, 0, "4097 bytes"},
		"by no finish":   {script{next: failAt(2, io.EOF)}, 2, "ended without a finish"},
		"while closing":  {script{next: failAt(2, errFinished), close: boom}, 2, "boom"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := settings()
			cfg.Capacity = 1
			run(t, cfg, worker.Deps{Engine: c.engine}, func(t *testing.T, b *bench) {
				l, _ := b.Open(t, b.from, userAddr)
				for range 2 { // the worker lives on, and the place is free again
					l.Send(t, attach(1, 1, 10))
					if c.tokens >= 0 {
						fakedirector.Next[*wirepb.Begin](t, l)
					}
					for range c.tokens {
						fakedirector.Next[wire.Chunk](t, l)
					}
					fail := fakedirector.Next[*wirepb.Fail](t, l)
					if fail.GetCode() != string(wire.CodeEngine) || !strings.Contains(fail.GetMessage(), c.want) {
						t.Errorf("got %v", fail)
					}
				}
				l.Close()
			})
		})
	}
}

func TestEngineThatEnds(t *testing.T) {
	run(t, settings(), worker.Deps{Engine: script{next: failAt(4, errFinished)}}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		l.Send(t, attach(1, 1, 10))
		tokens, end := stream(t, l, 1, 1, nil)
		if len(tokens) != 4 || end.GetFinishReason() != "stop" {
			t.Errorf("%d tokens, %v", len(tokens), end)
		}
		l.Close()
	})
}

func TestSessionsStepTogether(t *testing.T) {
	cfg := settings()
	cfg.TokenInterval = 100 * time.Millisecond
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		start := time.Now() // of the worker's clock too: nothing has moved since
		l, _ := b.Open(t, b.from, userAddr)
		at := make(map[time.Duration]int) // tokens by the time of their arrival
		for id := range uint64(5) {
			l.Send(t, attach(id, 1, 4))
			time.Sleep(7 * time.Millisecond)
		}
		for ended := 0; ended < 5; {
			switch fakedirector.Next[any](t, l).(type) {
			case wire.Chunk:
				at[time.Since(start).Round(10*time.Millisecond)]++
			case *wirepb.End:
				ended++
			}
		}
		for step := 1; step <= 3; step++ {
			if n := at[time.Duration(step)*cfg.TokenInterval]; n != 5 {
				t.Errorf("step %d: %d tokens arrived together, want 5; all: %v", step, n, at)
			}
		}
		synctest.Wait()
		l.Close()
	})
}

func only[E any](events []any) []E {
	var found []E
	for _, event := range events {
		if e, ok := event.(E); ok {
			found = append(found, e)
		}
	}
	return found
}

// script is an engine, and its only generation, that does as told.
type script struct {
	open  error
	next  func(n int) ([]byte, error) // n counts from 0
	close error
}

func (script) Name() string        { return "script" }
func (script) Fingerprint() string { return "script" }
func (s script) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	return &scripted{script: s, limit: engine.NewLimit(req, engine.Count(prefix), 1)}, s.open
}

type scripted struct {
	script script
	n      int
	limit  engine.Limit
}

func (g *scripted) Next(context.Context) (engine.Chunk, error) {
	g.n++
	return limited(&g.limit, func() ([]byte, error) { return g.script.next(g.n - 1) })
}

// limited returns the next text as a chunk; at the limit, and for errFinished, a Finish.
func limited(limit *engine.Limit, next func() ([]byte, error)) (engine.Chunk, error) {
	if err := limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	text, err := next()
	if errors.Is(err, errFinished) {
		err = engine.Finish{Reason: engine.Stop}
	}
	return engine.Chunk{Text: text}, err
}

// errFinished is what a script says at the end of its text.
var errFinished = errors.New("errFinished")

func (g *scripted) Close() error { return g.script.close }

func failAt(at int, err error) func(n int) ([]byte, error) {
	return func(n int) ([]byte, error) {
		if n == at {
			return nil, err
		}
		return []byte("word "), nil
	}
}

// endless makes the same token for ever.
type endless struct{}

func (endless) Name() string        { return "endless" }
func (endless) Fingerprint() string { return "endless" }
func (endless) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	s := script{next: func(int) ([]byte, error) { return bytes.Repeat([]byte("x"), 32), nil }}
	return s.Open(ctx, req, prefix, progress)
}

// stuckEngine makes no token, and tells when its generation is closed.
type stuckEngine struct{ closed chan struct{} }

func (*stuckEngine) Name() string        { return "stuck" }
func (*stuckEngine) Fingerprint() string { return "stuck" }
func (e *stuckEngine) Open(context.Context, engine.Request, []engine.Chunk, engine.Progress) (engine.Generation, error) {
	return e, nil
}

func (e *stuckEngine) Next(ctx context.Context) (engine.Chunk, error) {
	<-ctx.Done()
	return engine.Chunk{}, context.Cause(ctx)
}

func (e *stuckEngine) Close() error {
	close(e.closed)
	return nil
}
