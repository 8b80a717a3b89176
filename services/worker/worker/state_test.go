package worker_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// capture is a request for the state of session 1 in epoch 1.
func capture(number, keepMs uint64) *wirepb.Capture {
	return &wirepb.Capture{Session: 1, Epoch: 1, Capture: number, KeepMs: keepMs}
}

// notCaptured waits for the answer to a capture that fails.
func notCaptured(t *testing.T, l *fakedirector.Link, number uint64, code wire.Code) {
	t.Helper()
	m := fakedirector.Next[*wirepb.Captured](t, l)
	if m.GetCapture() != number || m.GetCode() != string(code) || m.GetSize() != 0 || m.GetSequence() != 0 {
		t.Errorf("got %v, want capture %d, %s", m, number, code)
	}
}

// Whatever is captured and whenever, the text is the same, and a generation restored from it makes the rest.
func TestCaptureDisturbsNothing(t *testing.T) {
	const length = 200
	for _, interval := range []time.Duration{0, 10 * time.Millisecond} {
		cfg := planned("stateful")
		cfg.TokenInterval = interval
		whole := undisturbed(t, cfg, length)
		run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
			p := fakedirector.NewPlanner("one")
			l := p.Open(t, b.World, b.from, userAddr)
			m := attach(1, 1, length)
			m.Credit = 0
			l.Send(t, m)
			var tokens [][]byte
			for number := uint64(1); number <= 40; number++ {
				grant := &wirepb.Credit_Grant{Session: 1, Epoch: 1, Sequence: length / 40 * number}
				l.Send(t, &wirepb.Credit{Grants: []*wirepb.Credit_Grant{grant}}, capture(number, 60_000))
				time.Sleep(35 * time.Millisecond)
			}
			taken := 0
			var end *wirepb.End
			for _, event := range l.Remaining(10 * time.Second) {
				switch event := event.(type) {
				case wire.Chunk:
					tokens = append(tokens, event.Text)
				case *wirepb.Captured:
					if event.GetCode() == "" {
						taken++
					}
				case *wirepb.End:
					end = event
				}
			}
			sameText(t, tokens, whole)
			if end == nil || taken == 0 {
				t.Errorf("%d captured, %v", taken, end)
			}
			l.Close()
		})
	}
}

func TestCapturedStateGoesOn(t *testing.T) {
	const length = 40
	cfg := planned("stateful")
	cfg.TokenInterval = 10 * time.Millisecond
	whole := undisturbed(t, cfg, length)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := p.Open(t, b.World, b.from, userAddr)
		l.Send(t, attach(1, 1, length))
		var tokens [][]byte
		for number := uint64(1); number <= 4; number++ {
			hearTokens(t, l, &tokens, 7*int(number))
			l.Send(t, capture(number, 60_000))
			m := hear[*wirepb.Captured](t, l, &tokens)
			snapshot, err := b.pull(t, p.Fetch(t, 1, number+1, m.GetSequence(), "worker-a", mgmtAddr, "worker-b"))
			if err != nil || snapshot.Sequence() != m.GetSequence() || uint64(snapshot.Size()) != m.GetSize() {
				t.Fatalf("captured %v, pulled %v, %v", m, snapshot, err)
			}
			e, _ := must(worker.EngineOf(cfg)).(engine.Stateful)
			g := must(e.Restore(t.Context(), engine.Request{Prompt: "river", Seed: 7}, must(snapshot.State())))
			for n := int(m.GetSequence()); n < length; n++ {
				if text := must(g.Next(t.Context())); string(text.Text) != string(whole[n]) {
					t.Fatalf("restored after %d: token %d is %q, want %q", m.GetSequence(), n+1, text.Text, whole[n])
				}
			}
		}
		l.Close()
	})
}

// A session that waits for its client is captured as well.
func TestCaptureWithoutCredit(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t) // has ten tokens' credit
		silent(t, s.link, time.Minute)
		s.capture(t, 2)
		s.link.Close()
	})
}

func TestCaptureOfWhatCannotBe(t *testing.T) {
	boom := func() ([]byte, error) { return nil, errors.New("boom") }
	word := func(context.Context) ([]byte, error) { return []byte("word "), nil }
	small, poor := planned("stateful"), planned("stateful")
	small.MaxStateBytes, poor.MaxSnapshotBytes = small.StateBytes-1, small.StateBytes/2
	cases := map[string]struct {
		cfg    config.Worker
		engine engine.Engine
		ask    *wirepb.Capture
		want   wire.Code
	}{
		"an engine without a state": {planned("markov"), nil, capture(1, 60_000), wire.CodeUnavailable},
		"another session":           {planned("stateful"), nil, &wirepb.Capture{Session: 2, Epoch: 1, Capture: 1}, wire.CodeStaleEpoch},
		"an epoch before":           {planned("stateful"), nil, &wirepb.Capture{Session: 1, Capture: 1}, wire.CodeStaleEpoch},
		"an epoch to come":          {planned("stateful"), nil, &wirepb.Capture{Session: 1, Epoch: 2, Capture: 1}, wire.CodeStaleEpoch},
		"a large state":             {small, nil, capture(1, 60_000), wire.CodeLimit},
		"a full store":              {poor, nil, capture(1, 60_000), wire.CodeCapacity},
		"an engine that fails":      {settings(), hooked{next: word, capture: boom}, capture(1, 60_000), wire.CodeEngine},
		"an engine that panics": {
			settings(), hooked{next: word, capture: func() ([]byte, error) { panic("ouch") }}, capture(1, 60_000), wire.CodeEngine,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, c.cfg, worker.Deps{Engine: c.engine}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				l := p.Open(t, b.World, b.from, userAddr)
				m := attach(1, 1, 0)
				m.Credit = 3
				l.Send(t, m)
				var tokens [][]byte
				hearTokens(t, l, &tokens, 3)
				l.Send(t, c.ask)
				notCaptured(t, l, 1, c.want)
				if held := b.status(t).SnapshotBytes; held != 0 {
					t.Errorf("%d bytes are kept", held)
				}
				_, err := b.pull(t, p.Fetch(t, 1, 2, 3, "worker-a", mgmtAddr, "worker-b"))
				hasCode(t, err, wire.CodeStateGone)
				l.Send(t, &wirepb.Credit{Grants: []*wirepb.Credit_Grant{{Session: 1, Epoch: 1, Sequence: 6}}})
				hearTokens(t, l, &tokens, 6) // generation goes on
				l.Close()
			})
		})
	}
}

func TestCaptureOfASessionThatHasEnded(t *testing.T) {
	ends := map[string]func(t *testing.T, l *fakedirector.Link){
		"completed": func(t *testing.T, l *fakedirector.Link) {
			l.Send(t, &wirepb.Credit{Grants: []*wirepb.Credit_Grant{{Session: 1, Epoch: 1, Sequence: 20}}})
			for len(only[*wirepb.End](l.Remaining(time.Second))) == 0 {
				continue
			}
		},
		"cancelled": func(t *testing.T, l *fakedirector.Link) { l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1}) },
		"replaced": func(t *testing.T, l *fakedirector.Link) {
			m := attach(1, 2, 20)
			m.Credit = 0
			l.Send(t, m)
			fakedirector.Next[*wirepb.Begin](t, l)
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
				p := fakedirector.NewPlanner("one")
				l := p.Open(t, b.World, b.from, userAddr)
				m := attach(1, 1, 20)
				m.Credit = 5
				l.Send(t, m)
				var tokens [][]byte
				hearTokens(t, l, &tokens, 5)
				end(t, l)
				l.Send(t, capture(1, 60_000))
				notCaptured(t, l, 1, wire.CodeStaleEpoch)
				l.Close()
			})
		})
	}
}

// A session may end while its state is being copied. Nobody needs that any more.
func TestCaptureOfASessionThatEndsMeanwhile(t *testing.T) {
	slow := hooked{
		next: func(context.Context) ([]byte, error) { return []byte("word "), nil },
		capture: func() ([]byte, error) {
			time.Sleep(time.Second)
			return []byte("state"), nil
		},
	}
	run(t, settings(), worker.Deps{Engine: slow}, func(t *testing.T, b *bench) {
		l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
		m := attach(1, 1, 0)
		m.Credit = 0
		l.Send(t, m)
		fakedirector.Next[*wirepb.Begin](t, l)
		l.Send(t, capture(1, 60_000), capture(2, 60_000))
		time.Sleep(500 * time.Millisecond)
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		for range 2 {
			if m := fakedirector.Next[*wirepb.Captured](t, l); m.GetCode() != string(wire.CodeStaleEpoch) {
				t.Errorf("got %v", m)
			}
		}
		if held := b.status(t).SnapshotBytes; held != 0 {
			t.Errorf("%d bytes are kept", held)
		}
		l.Close()
	})
}

// Nobody captures the state of a generation that is closed, or being closed.
func TestNoCaptureAfterClose(t *testing.T) {
	var closed, late atomic.Bool
	e := hooked{
		next: slow.next,
		capture: func() ([]byte, error) {
			late.Store(closed.Load())
			return []byte("state"), nil
		},
		close: func() {
			closed.Store(true)
			time.Sleep(time.Second)
		},
	}
	run(t, settings(), worker.Deps{Engine: e}, func(t *testing.T, b *bench) {
		l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
		l.Send(t, attach(1, 1, 1))
		fakedirector.Next[*wirepb.Begin](t, l)
		fakedirector.Next[wire.Chunk](t, l) // the last one
		l.Send(t, capture(1, 60_000))
		notCaptured(t, l, 1, wire.CodeUnavailable)
		fakedirector.Next[*wirepb.End](t, l)
		l.Close()
	})
	if !closed.Load() || late.Load() {
		t.Errorf("closed %v, captured after that %v", closed.Load(), late.Load())
	}
}

// The state of a session that came from elsewhere is behind all its tokens, not only those made here.
func TestCaptureAfterATakeover(t *testing.T) {
	cfg := planned("stateful")
	whole := undisturbed(t, cfg, 30)
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		l := p.Open(t, b.World, b.from, userAddr)
		m := after(1, whole[:12])
		m.Credit = 15
		l.Send(t, m)
		tokens := whole[:12:12]
		hearTokens(t, l, &tokens, 15)
		l.Send(t, capture(1, 60_000))
		if m := fakedirector.Next[*wirepb.Captured](t, l); m.GetSequence() != 15 {
			t.Errorf("got %v", m)
		}
		snapshot := must(b.pull(t, p.Fetch(t, 1, 2, 15, "worker-a", mgmtAddr, "worker-b")))
		if want := captured(t, cfg, 15, 15); !bytes.Equal(must(snapshot.State()), must(want.State())) {
			t.Error("the state is another one")
		}
		l.Close()
	})
}

// Neither a standby nor a session whose engine is not open yet has a state.
func TestCaptureBeforeThereIsAState(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		l := b.standby(t, fakedirector.NewPlanner("one"), nil, 20)
		l.Send(t, &wirepb.Capture{Session: 1, Epoch: 2, Capture: 1})
		notCaptured(t, l, 1, wire.CodeUnavailable)
		l.Close()
	})
}

// What was asked for last counts, in whatever order it comes.
func TestNewerCaptureWins(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		s.capture(t, 5)
		before := b.status(t).SnapshotBytes
		s.link.Send(t, &wirepb.Credit{Grants: []*wirepb.Credit_Grant{{Session: 1, Epoch: 1, Sequence: 12}}})
		for range 2 {
			fakedirector.Next[wire.Chunk](t, s.link)
		}
		for _, late := range []uint64{4, 0} {
			s.link.Send(t, capture(late, 60_000))
			notCaptured(t, s.link, late, wire.CodeStaleEpoch)
		}
		s.link.Send(t, capture(5, 60_000)) // doubled: another one of the same
		if m := fakedirector.Next[*wirepb.Captured](t, s.link); m.GetCode() != "" || m.GetCapture() != 5 || m.GetSequence() != 12 {
			t.Errorf("got %v", m)
		}
		if after := b.status(t).SnapshotBytes; after < before/2 || after > 2*before {
			t.Errorf("%d bytes kept, one has %d", after, before)
		}
		snapshot, err := b.pull(t, s.one.Fetch(t, 1, 2, 12, "worker-a", mgmtAddr, "worker-b"))
		if err != nil || snapshot.Sequence() != 12 {
			t.Errorf("got %v, %v", snapshot, err)
		}
		s.link.Close()
	})
}

func TestManyCapturesAtOnce(t *testing.T) {
	cfg := planned("stateful")
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		one := b.status(t).SnapshotBytes
		var all []wire.Message
		for number := range uint64(50) {
			all = append(all, capture(number+2, 60_000))
		}
		s.link.Send(t, all...)
		answered := make(map[uint64]int)
		for range all {
			m := fakedirector.Next[*wirepb.Captured](t, s.link)
			answered[m.GetCapture()]++
			if code := wire.Code(m.GetCode()); code != "" && code != wire.CodeStaleEpoch || m.GetCapture() == 51 && code != "" {
				t.Errorf("got %v", m)
			}
		}
		if len(answered) != len(all) {
			t.Errorf("answered: %v", answered)
		}
		if held := b.status(t).SnapshotBytes; held > 2*one {
			t.Errorf("%d bytes kept, one has %d", held, one)
		}
		s.link.Close()
	})
}

func TestSnapshotsAreNotKeptForEver(t *testing.T) {
	for name, c := range map[string]struct {
		ms   uint64
		want time.Duration
	}{
		"for a while":          {2_000, 2 * time.Second},
		"for no given time":    {0, 10 * time.Minute},
		"for too long":         {1 << 40, 10 * time.Minute},
		"for longer than ever": {1<<64 - 1, 10 * time.Minute},
		"until after the wrap": {1<<63/1_000_000 + 1, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
				s := b.source(t)
				s.link.Send(t, capture(2, c.ms))
				fakedirector.Next[*wirepb.Captured](t, s.link)
				s.link.Close()
				time.Sleep(c.want - time.Second)
				if b.status(t).SnapshotBytes == 0 {
					t.Error("gone too early")
				}
				time.Sleep(2 * time.Second)
				if held := b.status(t).SnapshotBytes; held != 0 {
					t.Errorf("%d bytes are kept", held)
				}
			})
		})
	}
}

// A snapshot outlives its session, for whoever was told of it. The worker takes it along when it leaves.
func TestSnapshotOutlivesItsSession(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		s.link.Send(t, &wirepb.Cancel{Session: 1, Epoch: 1})
		silent(t, s.link, time.Second)
		snapshot, err := b.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: s.good(t)})
		if err != nil || snapshot.Sequence() != 10 {
			t.Errorf("got %v, %v", snapshot, err)
		}
		s.link.Close()
	})
}

func TestDiscard(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		other := fakedirector.NewPlanner("other").Open(t, b.World, b.Net.Host("director-2"), userAddr)
		other.Send(t, &wirepb.Discard{Session: 1}) // of another director's session with that number
		s.link.Send(t, &wirepb.Discard{Session: 2}, &wirepb.Discard{Session: 1, Checkpoint: true})
		time.Sleep(time.Second)
		if b.status(t).SnapshotBytes == 0 {
			t.Fatal("somebody else's was discarded")
		}
		s.link.Send(t, &wirepb.Discard{Session: 1}, &wirepb.Discard{Session: 1})
		time.Sleep(time.Second)
		if held := b.status(t).SnapshotBytes; held != 0 {
			t.Errorf("%d bytes are kept", held)
		}
		_, err := b.pull(t, &wirepb.Fetch{Session: 1, Addr: mgmtAddr, Token: s.good(t)})
		hasCode(t, err, wire.CodeStateGone)
		s.capture(t, 2) // that is no obstacle for the next one
		other.Close()
		s.link.Close()
	})
}

// Engines that are stuck in a token keep nobody else's state from being captured.
func TestStuckEnginesBlockNoCapture(t *testing.T) {
	stuck := hooked{
		next:    func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, context.Cause(ctx) },
		capture: func() ([]byte, error) { return []byte("state"), nil },
	}
	run(t, settings(), worker.Deps{Engine: stuck}, func(t *testing.T, b *bench) {
		l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
		for id := uint64(1); id <= 6; id++ {
			m := attach(id, 1, 0)
			if id == 6 {
				m.Credit = 0 // this one is not in a token
			}
			l.Send(t, m)
			fakedirector.Next[*wirepb.Begin](t, l)
		}
		for id := uint64(1); id <= 5; id++ {
			l.Send(t, &wirepb.Capture{Session: id, Epoch: 1, Capture: 1})
		}
		time.Sleep(time.Second)
		l.Send(t, &wirepb.Capture{Session: 6, Epoch: 1, Capture: 1})
		codes := make(map[string]int)
		for range 6 {
			codes[fakedirector.Next[*wirepb.Captured](t, l).GetCode()]++
		}
		if codes[string(wire.CodeUnavailable)] != 5 || codes[""] != 1 {
			t.Errorf("got %v", codes)
		}
		l.Send(t, &wirepb.Capture{Session: 1, Epoch: 1, Capture: 2}, &wirepb.Cancel{Session: 1, Epoch: 1})
		m := fakedirector.Next[*wirepb.Captured](t, l)
		if m.GetCode() == "" {
			t.Errorf("got %v", m)
		}
		l.Close()
	})
}

// The link is lost in the middle of everything.
func TestLinkLostWhileCapturing(t *testing.T) {
	run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
		s := b.source(t)
		var all []wire.Message
		for number := range uint64(20) {
			all = append(all, capture(number+2, 60_000), s.hold(t, number+2))
		}
		s.link.Send(t, all...)
		s.link.Close()
		b.idle(t, mgmtAddr)
	})
}
