package connswap_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/wire"
)

// However a director goes away, the stream ends in an error that says so, within a bound.
func TestLosingTheDirector(t *testing.T) {
	for name, loss := range map[string]struct {
		lose   func(t *world, s *fakedirector.Stream)
		want   connswap.Code
		within time.Duration
	}{
		"shutdown": {func(_ *world, s *fakedirector.Stream) {
			_ = s.Conn.CloseWithError(wire.QUICShutdown, "shutdown: the director is shutting down")
		}, connswap.CodeShutdown, time.Second},
		"close that deceives": {func(_ *world, s *fakedirector.Stream) {
			_ = s.Conn.CloseWithError(wire.QUICShutdown, "shutdown: all is well\x1b[2J\u202e")
		}, connswap.CodeShutdown, time.Second},
		"close with a number only": {func(_ *world, s *fakedirector.Stream) {
			_ = s.Conn.CloseWithError(wire.QUICRefused, "Something else")
		}, connswap.CodeUnavailable, time.Second},
		"killed":    {func(t *world, _ *fakedirector.Stream) { t.director.Kill() }, connswap.CodeLost, 8 * time.Second},
		"crashed":   {func(t *world, _ *fakedirector.Stream) { t.director.Crash() }, connswap.CodeLost, 8 * time.Second},
		"cut off":   {func(t *world, _ *fakedirector.Stream) { t.client.Isolate() }, connswap.CodeLost, 8 * time.Second},
		"cancelled": {func(_ *world, s *fakedirector.Stream) { s.CancelWrite(wire.StreamCancel) }, connswap.CodeCancelled, time.Second},
		"refused":   {func(_ *world, s *fakedirector.Stream) { s.CancelWrite(wire.StreamRefused) }, connswap.CodeUnavailable, time.Second},
		"reset":     {func(_ *world, s *fakedirector.Stream) { s.CancelWrite(99) }, connswap.CodeInternal, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
					s.Assign()
					s.Say(1, "a")
					time.Sleep(100 * time.Millisecond)
					loss.lose(t, s)
					<-s.Conn.Context().Done()
				})
				start := time.Now()
				events, err := collect(stream)
				if !errors.Is(err, &connswap.Error{Code: loss.want}) {
					t.Errorf("got %v, want %s", err, loss.want)
				}
				if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("not fit for a terminal: %q", err)
				}
				if after := time.Since(start); after > loss.within {
					t.Errorf("noticed after %v", after)
				}
				if len(events) != 2 {
					t.Errorf("events before that: %v", events)
				}
			})
		})
	}
}

// A connection without streams is not watched: cut off for a while, it is there afterwards, with the same id.
func TestIdleConnectionOutlivesAnOutage(t *testing.T) {
	inWorld(t, func(t *world) {
		conn := t.dial(func(s *fakedirector.Stream) {
			s.Assign()
			s.Say(1, "a")
			s.Send(s.Finish())
		})
		generate := func() {
			t.Helper()
			stream, err := conn.Generate(t.Context(), connswap.Request{Prompt: "hello", MaxTokens: 1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := collect(stream); err != nil {
				t.Errorf("got %v", err)
			}
		}
		generate()
		time.Sleep(time.Minute)
		t.client.Isolate()
		time.Sleep(20 * time.Second)
		t.client.Rejoin()
		generate()
	})
}

// A director that has nothing to say for long is not lost while it answers.
func TestSilentDirectorIsNotLost(t *testing.T) {
	inWorld(t, func(t *world) {
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Assign()
			time.Sleep(10 * time.Minute)
			s.Say(1, "a")
			s.Send(s.Finish())
		})
		if _, err := collect(stream); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestClosingTheConnectionEndsItsStreams(t *testing.T) {
	inWorld(t, func(t *world) {
		gone := make(chan struct{})
		conn := t.dial(func(s *fakedirector.Stream) {
			s.Assign()
			<-s.Conn.Context().Done()
			close(gone)
		})
		stream, err := conn.Generate(t.Context(), connswap.Request{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { conn.Close() }) //nolint:errcheck // seen on the other side
		if _, err := collect(stream); !errors.Is(err, connswap.ErrClosed) {
			t.Errorf("got %v", err)
		}
		<-gone
		if _, err := conn.Generate(t.Context(), connswap.Request{}); !errors.Is(err, connswap.ErrClosed) {
			t.Errorf("a closed connection generates: %v", err)
		}
	})
}

// A director that never ends a stream whose last frame it sent does not hold its reader.
func TestDoneWithoutAnEnd(t *testing.T) {
	inWorld(t, func(t *world) {
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Assign()
			s.Send(s.Finish())
			<-s.Context().Done()
		})
		start := time.Now()
		if events, err := collect(stream); err != nil || len(events) != 2 {
			t.Errorf("got %v, %v", events, err)
		}
		if after := time.Since(start); after > 5*time.Second {
			t.Errorf("complete after %v", after)
		}
	})
}

// What has arrived is complete, even if the connection is lost with the last frame.
func TestDoneThenLost(t *testing.T) {
	inWorld(t, func(t *world) {
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Assign()
			s.Send(s.Finish())
			time.Sleep(100 * time.Millisecond)
			_ = s.Conn.CloseWithError(wire.QUICShutdown, "shutdown")
		})
		if events, err := collect(stream); err != nil || len(events) != 2 {
			t.Errorf("got %v, %v", events, err)
		}
	})
}

func TestGenerateWaitsForAPlace(t *testing.T) {
	inWorld(t, func(t *world) {
		t.start(fakedirector.Director{MaxStreams: 1, Play: func(s *fakedirector.Stream) {
			s.Assign()
			time.Sleep(10 * time.Second)
			s.Send(s.Finish())
		}})
		conn, err := connswap.Dial(t.Context(), "director:61000", t.options())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // not under test
		first, err := conn.Generate(t.Context(), connswap.Request{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := conn.Generate(ctx, connswap.Request{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a place: %v", err)
		}
		if _, err := collect(first); err != nil {
			t.Fatal(err)
		}
		second, err := conn.Generate(t.Context(), connswap.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := collect(second); err != nil {
			t.Error(err)
		}
	})
}
