package connswap_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/quicnet"
)

// speak sends tokens at an interval until the stream's place at the client is gone.
func speak(s *fakedirector.Stream, tokens int, interval time.Duration) {
	for range tokens {
		s.Say(1, "x")
		time.Sleep(interval)
	}
}

// longestPause reads a stream to its end, calls at after each token, and returns the longest time between two.
func longestPause(t *world, s *connswap.Stream, at func(sequence uint64)) (longest time.Duration) {
	t.Helper()
	last := time.Now()
	for token, err := range s.Tokens() {
		if err != nil {
			t.Fatal(err)
		}
		if token.Sequence > 1 {
			longest = max(longest, time.Since(last))
		}
		last = time.Now()
		at(token.Sequence)
	}
	return longest
}

// rebindOften gives the client another port between two tokens, again and again: where the last packet of either side is the
// client's acknowledgement, nothing that it sends shows the director the new port.
func (w *world) rebindOften(interval time.Duration) func(sequence uint64) {
	return func(sequence uint64) {
		if sequence%61 == 60 {
			time.AfterFunc(interval/2, w.client.Rebind)
		}
	}
}

// When a NAT gives the client another port in the middle of a stream, the pause is a few intervals and round trips, not a
// keep-alive and what QUIC's timers have grown to meanwhile.
func TestRebinding(t *testing.T) {
	for name, test := range map[string]struct {
		interval time.Duration
		most     time.Duration
	}{
		"quick tokens": {20 * time.Millisecond, 600 * time.Millisecond},
		"slow tokens":  {200 * time.Millisecond, 1200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				const tokens = 500
				stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
					s.Assign()
					speak(s, tokens, test.interval)
					s.Send(s.Finish())
				})
				pause := longestPause(t, stream, t.rebindOften(test.interval))
				t.Logf("pause %v at intervals of %v", pause, test.interval)
				if pause > test.most {
					t.Errorf("a rebinding costs %v at intervals of %v", pause, test.interval)
				}
			})
		})
	}
}

// probes counts those that come to a director.
func probes(conn *quic.Conn) *atomic.Int64 {
	n := new(atomic.Int64)
	go func() {
		for {
			if _, err := conn.ReceiveDatagram(conn.Context()); err != nil {
				return
			}
			n.Add(1)
		}
	}()
	return n
}

// A silence that is only a silence is asked about three times, however long it is.
func TestSilenceIsAskedAboutRarely(t *testing.T) {
	inWorld(t, func(t *world) {
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			got := probes(s.Conn)
			expect := func(when string, want int64) {
				if n := got.Load(); n != want {
					t.Errorf("%s: %d probes, want %d", when, n, want)
				}
			}
			s.Assign()
			time.Sleep(time.Minute)
			expect("before there is a rhythm", 0)
			speak(s, 100, 20*time.Millisecond)
			expect("after tokens", 0)
			time.Sleep(1500 * time.Millisecond)
			expect("after a moment", 3)
			time.Sleep(10 * time.Minute)
			expect("after ten minutes", 3)
			speak(s, 200, 20*time.Millisecond)
			time.Sleep(time.Minute)
			expect("after the next silence", 6)
			s.Send(s.Finish())
		})
		if _, err := collect(stream); err != nil {
			t.Error(err)
		}
	})
}

// Nothing is asked where tokens come in bursts, and neither where they come but are not read.
func TestNothingIsAskedInARhythm(t *testing.T) {
	for name, test := range map[string]struct {
		burst int
		pause time.Duration
		stall time.Duration // of the reader
	}{
		"bursts":      {5, 600 * time.Millisecond, 0},
		"slow reader": {1, 20 * time.Millisecond, 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
					got := probes(s.Conn)
					s.Assign()
					for range 200 {
						for range test.burst {
							s.Say(1, "x")
						}
						time.Sleep(test.pause)
					}
					if n := got.Load(); n > 0 {
						t.Errorf("%d probes", n)
					}
					s.Send(s.Finish())
				})
				longestPause(t, stream, func(sequence uint64) {
					if sequence == 50 {
						time.Sleep(test.stall)
					}
				})
			})
		})
	}
}

// A director that knows nothing of probes gets none, and is found again by the keep-alive.
func TestRebindingAtAnOlderDirector(t *testing.T) {
	inWorld(t, func(t *world) {
		conf := quicnet.ServeClientsConfig(100)
		conf.EnableDatagrams = false
		t.start(fakedirector.Director{Conf: conf, Play: func(s *fakedirector.Stream) {
			s.Assign()
			speak(s, 500, 20*time.Millisecond)
			s.Send(s.Finish())
		}})
		conn, err := connswap.Dial(t.Context(), "director:61000", t.options())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // not under test
		stream, err := conn.Generate(t.Context(), connswap.Request{})
		if err != nil {
			t.Fatal(err)
		}
		pause := longestPause(t, stream, t.rebindOften(20*time.Millisecond))
		t.Logf("pause %v", pause)
		if pause < time.Second || pause > 6*time.Second {
			t.Errorf("without probes a rebinding costs %v", pause)
		}
	})
}

// Without a stream nothing is asked.
func TestProbesEndWithTheirStreams(t *testing.T) {
	inWorld(t, func(t *world) {
		var got *atomic.Int64
		conn := t.dial(func(s *fakedirector.Stream) {
			got = probes(s.Conn)
			s.Assign()
			speak(s, 20, 20*time.Millisecond)
			<-s.Context().Done()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 450*time.Millisecond)
		defer cancel()
		stream, err := conn.Generate(ctx, connswap.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := collect(stream); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		if n := got.Load(); n > 0 {
			t.Errorf("%d probes", n)
		}
	})
}
