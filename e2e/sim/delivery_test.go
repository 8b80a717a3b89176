package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// TestPathThatCarriesSmallPacketsOnly has larger packets vanish while a stream runs, in one direction or in both. Progress
// and acknowledgements pass; a long prompt, or the tokens of many streams, do not. The link has to notice that, and the next
// one works once the path does: QUIC itself asks for 1200 bytes.
func TestPathThatCarriesSmallPacketsOnly(t *testing.T) {
	const tokens, fault = 200, 3500 * time.Millisecond
	for name, c := range map[string]struct{ to, from bool }{
		"to the worker": {true, false}, "from the worker": {false, true}, "in both directions": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			room := func(cfg *config.Worker) { cfg.Capacity = 1000 }
			stage(t, setup{worker: room}, func(t *testing.T, s *scenario) {
				only, other := s.workers[0], s.workers[1]
				other.die(other.host.Kill)
				set := func(path simtest.Path) {
					if c.to {
						s.net.SetPath(s.director, only.host, path)
					}
					if c.from {
						s.net.SetPath(only.host, s.director, path)
					}
				}
				var all []<-chan outcome
				for range 300 { // their tokens fill packets together
					all = append(all, s.inBackground("p", tokens))
				}
				time.Sleep(time.Second)
				set(simtest.Path{Delay: time.Millisecond, MTU: 600})
				all = append(all, s.inBackground(strings.Repeat("tale ", 4<<10), tokens))
				time.Sleep(fault)
				set(simtest.Path{Delay: time.Millisecond})
				noticed := 0
				for _, one := range all {
					o := <-one
					if o.err != nil || o.tokens != tokens {
						t.Errorf("%d tokens, %v", o.tokens, o.err)
					}
					for _, swapped := range o.swaps {
						// Where much comes from the worker, its progress is in the packets that vanish: that is noticed earlier.
						if c.from || strings.HasPrefix(swapped.Cause, "what is sent does not arrive") {
							noticed++
						}
					}
				}
				if noticed == 0 {
					t.Error("no stream was moved for it")
				}
			})
		})
	}
}

// TestLongLossyPath has nothing fail on a path of 300 ms round trip that loses 3 % of its packets, for two minutes: no
// stream moves.
func TestLongLossyPath(t *testing.T) {
	const streams, tokens = 6, int(2 * time.Minute / interval)
	for name, path := range map[string]simtest.Path{
		"300 ms, 3 %":        {Delay: 150 * time.Millisecond, Loss: 0.03},
		"240 to 300 ms, 1 %": {Delay: 120 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.01},
		"40 to 60 ms, 5 %":   {Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.05},
	} {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{}, func(t *testing.T, s *scenario) {
				for _, p := range s.workers {
					s.net.SetPath(s.director, p.host, path)
					s.net.SetPath(p.host, s.director, path)
				}
				time.Sleep(5 * time.Second) // the links were measured on another path: they may go once
				var all []<-chan outcome
				for range streams {
					all = append(all, s.inBackground("p", tokens))
				}
				for _, one := range all {
					if o := <-one; o.err != nil || o.tokens != uint64(tokens) || len(o.swaps) > 0 {
						t.Errorf("%d tokens, swaps %v, %v", o.tokens, o.swaps, o.err)
					}
				}
			})
		})
	}
}

// TestWorkerThatDiedAtLeisure has a machine vanish without a word while its worker has no streams: nobody is in a hurry to
// notice. A stream that is given to it waits no longer than one of which the worker dies.
func TestWorkerThatDiedAtLeisure(t *testing.T) {
	for name, vanish := range map[string]func(p *process){
		"crash":  func(p *process) { p.die(p.host.Crash) },
		"freeze": func(p *process) { p.host.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			stage(t, setup{}, func(t *testing.T, s *scenario) {
				time.Sleep(10 * time.Second) // of leisure
				vanish(s.workers[0])
				time.Sleep(time.Second)
				tried := 0
				for range 2 { // in turn
					start := time.Now()
					o := s.generate(1, nil)
					if took := time.Since(start); o.err != nil || took > interval+300*time.Millisecond {
						t.Errorf("on %v: after %v, %v", o.workers, took, o.err)
					} else if took > interval+150*time.Millisecond {
						tried++
					}
				}
				if tried != 1 {
					t.Errorf("%d streams were given to the worker that is gone", tried)
				}
				s.workers[0].host.Thaw()
			})
		})
	}
}
