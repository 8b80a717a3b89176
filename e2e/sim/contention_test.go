package sim

import (
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// occupy takes one place of a worker for another director, until the connection is closed.
func (s *scenario) occupy(t *testing.T, label string) *quicnet.Conn {
	tls := identity.ClientTLS(s.sources[identity.Director], wire.ALPNLink, identity.Worker)
	conn, err := quicnet.Dial(s.ctx, s.net.Host("director-2"), label+":62001", tls, quicnet.LinkConfig(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	control, err := conn.OpenStreamSync(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	hello := &wirepb.LinkHello{
		Version: wire.NewestPeerVersion, DirectorId: "director-2", DirectorInstance: "2", ProgressIntervalMs: 1000, TokenStreams: 1,
	}
	attach := &wirepb.Attach{Session: 1, Epoch: 1, Request: &wirepb.Request{MaxTokens: 5}}
	if _, err := control.Write(wire.Append(wire.Append(nil, hello), attach)); err != nil {
		t.Fatal(err)
	}
	s.wg.Go(func() {
		frames := wire.NewReader(control, wire.MaxControl)
		for err == nil {
			_, err = frames.Next()
		}
	})
	return conn
}

// TestFullElsewhere lets another director have every place: a stream is declined again and again, waits, is told so
// once, and gets the first place that is free.
func TestFullElsewhere(t *testing.T) {
	stage(t, setup{worker: func(cfg *config.Worker) { cfg.Capacity = 1 }}, func(t *testing.T, s *scenario) {
		for _, p := range s.workers {
			conn := s.occupy(t, p.cfg.Label)
			time.AfterFunc(20*time.Second, func() { _ = conn.Close(wire.QUICOk, "") }) // in the bubble
		}
		time.Sleep(time.Second)
		o := s.generate(5, nil)
		if o.err != nil || o.text != counted(5) || len(o.swaps) != 0 || len(o.waiting) != 1 {
			t.Errorf("%d tokens, %v, swaps %+v, told to wait %+v", o.tokens, o.err, o.swaps, o.waiting)
		}
	})
}

// TestStuckWithNowhereToGo blocks a generation on the only worker: the stream waits for another as long as it would
// wait for any, then begins anew where it is.
func TestStuckWithNowhereToGo(t *testing.T) {
	su := setup{engine: &stuckOnce{Engine: mustEngine(t, "counter"), prompt: "p", at: 20}}
	stage(t, su, func(t *testing.T, s *scenario) {
		s.workers[1].die(s.workers[1].host.Kill)
		time.Sleep(time.Second)
		o := s.generate(40, nil)
		if o.err != nil || o.text != counted(40) || len(o.swaps) != 1 || o.swaps[0].Gap < time.Minute || o.swaps[0].Gap > 65*time.Second {
			t.Errorf("%d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
		}
	})
}

// TestPausedReaderIsNotBlamed kills one worker after the other while a client does not read: its request could not
// make progress, so it is not what kills them.
func TestPausedReaderIsNotBlamed(t *testing.T) {
	su := setup{
		director: func(cfg *config.Director) { cfg.WindowTokens = 8 },
		worker:   func(cfg *config.Worker) { cfg.TokenInterval, cfg.Engine = time.Millisecond, "markov" },
	}
	stage(t, su, func(t *testing.T, s *scenario) {
		const tokens = 12_000
		stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: tokens})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // in the bubble: the window is full
		for range 5 {
			for _, w := range s.registered() {
				if w.Sessions == 1 {
					p := s.worker(w.Worker)
					p.die(p.host.Kill)
					time.Sleep(5 * time.Second)
					p.restart()
				}
			}
			time.Sleep(5 * time.Second)
		}
		n := 0
		for _, err = range stream.Tokens() {
			if err != nil {
				t.Fatalf("after %d tokens: %v", n, err)
			}
			n++
		}
		if n != tokens {
			t.Errorf("%d tokens", n)
		}
	})
}
