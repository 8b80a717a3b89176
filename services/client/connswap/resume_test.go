package connswap_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// resumable asks a director for a stream that keeps those of lost clients for a minute.
func (w *world) resumable(ctx context.Context, d fakedirector.Director) (*connswap.Conn, *connswap.Stream) {
	w.Helper()
	d.ResumeWait = time.Minute
	w.start(d)
	conn, err := connswap.Dial(w.Context(), "director:61000", w.options())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() }) //nolint:errcheck // some tests close it themselves
	stream, err := conn.Generate(ctx, connswap.Request{Prompt: "hello"})
	if err != nil {
		w.Fatal(err)
	}
	return conn, stream
}

// TestResume: the connection breaks at every place of a stream, also twice. The reader gets each token once, and is told; it
// says exactly what it has, and the QUIC connection is another one.
func TestResume(t *testing.T) {
	inWorld(t, func(w *world) {
		var said []*wirepb.Resume
		conn, stream := w.resumable(w.Context(), fakedirector.Director{Play: func(s *fakedirector.Stream) {
			lose := func() {
				time.Sleep(10 * delay) // the client has read all
				said = append(said, s.Break(wire.QUICLost))
			}
			s.Assign()
			lose()
			s.Say(1, "a", "b")
			lose()
			s.Swap()
			lose()
			lose()
			s.Say(2, "c")
			lose()
			s.Send(s.Finish())
		}})
		first, err := conn.Proof()
		if err != nil {
			t.Fatal(err)
		}
		var tokens []string
		proofs := []connswap.Proof{first}
		for event, err := range stream.Events() {
			switch e := event.(type) {
			case connswap.Token:
				tokens = append(tokens, e.Text)
			case connswap.Resumed:
				proofs = append(proofs, e.Proof)
				if e.Sequence != uint64(len(tokens)) || !errors.Is(e.Cause, &connswap.Error{Code: connswap.CodeLost}) {
					t.Errorf("%+v after %q", e, tokens)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(tokens, []string{"a", "b", "c"}) || conn.ID() != "conn-1" {
			t.Errorf("read %q on %s", tokens, conn.ID())
		}
		none, ab, abc := session.DigestOf(), session.DigestOf([]byte("a"), []byte("b")), session.DigestOf([]byte("a"), []byte("b"), []byte("c"))
		for i, want := range []*wirepb.Resume{
			{Records: 1, Digest: none[:]},
			{Records: 3, Sequence: 2, Digest: ab[:]},
			{Records: 4, Sequence: 2, Digest: ab[:]},
			{Records: 4, Sequence: 2, Digest: ab[:]},
			{Records: 5, Sequence: 3, Digest: abc[:]},
		} {
			if got := said[i]; got.GetStream() != 1 || got.GetRecords() != want.GetRecords() ||
				got.GetSequence() != want.GetSequence() || string(got.GetDigest()) != string(want.GetDigest()) {
				t.Errorf("the %d. time the client said %v, want %v", i+1, got, want)
			}
		}
		for i, p := range proofs {
			if slices.Contains(proofs[:i], p) {
				t.Errorf("the QUIC connection %v carried the stream before", p)
			}
		}
	})
}

// TestKey: the client shows its key when it comes, and when it comes back.
func TestKey(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start(fakedirector.Director{Key: "sk-right", ResumeWait: time.Minute, Play: func(s *fakedirector.Stream) {
			s.Assign()
			time.Sleep(10 * delay) // the client has read all
			s.Break(wire.QUICLost)
			s.Send(s.Finish())
		}})
		for _, key := range []string{"", "sk-wrong"} {
			opts := w.options()
			opts.Key = key
			_, err := connswap.Dial(w.Context(), "director:61000", opts)
			if !errors.Is(err, &connswap.Error{Code: connswap.CodeUnauthorized}) || strings.Contains(err.Error(), "sk-") {
				t.Errorf("with %q: %v", key, err)
			}
		}
		opts := w.options()
		opts.Key = "sk-right"
		conn, err := connswap.Dial(w.Context(), "director:61000", opts)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // the test is over
		stream, err := conn.Generate(w.Context(), connswap.Request{Prompt: "hello"})
		if err != nil {
			t.Fatal(err)
		}
		resumed := false
		for event, err := range stream.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := event.(connswap.Resumed); ok {
				resumed = true
			}
		}
		if !resumed {
			t.Error("the stream did not go on over another connection")
		}
	})
}

// TestGenerateAfterLoss: a stream that is asked for when the connection of others has broken goes over the one that they find.
func TestGenerateAfterLoss(t *testing.T) {
	inWorld(t, func(w *world) {
		conn, first := w.resumable(w.Context(), fakedirector.Director{Play: func(s *fakedirector.Stream) {
			if s.Request.GetPrompt() == "hello" {
				s.Break(wire.QUICLost)
			}
			s.Assign()
			s.Say(1, s.Request.GetPrompt())
			s.Send(s.Finish())
		}})
		time.Sleep(10 * delay) // it has broken, and nobody reads
		second, err := conn.Generate(w.Context(), connswap.Request{Prompt: "again"})
		if err != nil {
			t.Fatal(err)
		}
		for stream, want := range map[*connswap.Stream]string{first: "hello", second: "again"} {
			events, err := collect(stream)
			if err != nil || !strings.Contains(fmt.Sprint(events), want) {
				t.Errorf("got %v, %v, want %q", events, err, want)
			}
		}
	})
}

// TestNotResumed: what the director says ends the stream with that; a word that is no accident is not tried again.
func TestNotResumed(t *testing.T) {
	breaks := func(code quic.ApplicationErrorCode) func(*fakedirector.Stream) {
		return func(s *fakedirector.Stream) {
			s.Assign()
			time.Sleep(10 * delay) // the client has read it
			_ = s.Conn.CloseWithError(code, "")
		}
	}
	lost := breaks(wire.QUICLost)
	for name, test := range map[string]struct {
		director fakedirector.Director
		want     wire.Code
	}{
		"connection unknown": {fakedirector.Director{Play: lost, Return: wire.Errorf(wire.CodeResumeUnknown, "who?")}, wire.CodeLost},
		"wrong secret":       {fakedirector.Director{Play: lost, Return: wire.Errorf(wire.CodeResumeSecret, "no")}, wire.CodeResumeSecret},
		"shutting down":      {fakedirector.Director{Play: lost, Return: wire.Errorf(wire.CodeShutdown, "no")}, wire.CodeShutdown},
		"stream is over":     {fakedirector.Director{Play: lost, Resume: wire.Errorf(wire.CodeResumeStream, "no")}, wire.CodeResumeStream},
		"ahead":              {fakedirector.Director{Play: lost, Resume: wire.Errorf(wire.CodeResumeAhead, "no")}, wire.CodeResumeAhead},
		"behind":             {fakedirector.Director{Play: lost, Resume: wire.Errorf(wire.CodeResumeBehind, "no")}, wire.CodeResumeBehind},
		"digest":             {fakedirector.Director{Play: lost, Resume: wire.Errorf(wire.CodeResumeDigest, "no")}, wire.CodeResumeDigest},
		"shutdown":           {fakedirector.Director{Play: breaks(wire.QUICShutdown)}, wire.CodeShutdown},
		"protocol":           {fakedirector.Director{Play: breaks(wire.QUICProtocol)}, wire.CodeProtocol},
		"refused":            {fakedirector.Director{Play: breaks(wire.QUICRefused)}, wire.CodeUnavailable},
		"somebody else":      {fakedirector.Director{Play: breaks(wire.QUICTaken)}, wire.CodeResumeTaken},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				_, stream := w.resumable(w.Context(), test.director)
				start := time.Now()
				events, err := collect(stream)
				if !errors.Is(err, &connswap.Error{Code: test.want}) || time.Since(start) > time.Second {
					t.Errorf("got %v, %v after %v; want %s", events, err, time.Since(start), test.want)
				}
			})
		})
	}
}

// TestResumeGivenUp: nobody is there any more. The reader waits as long as the director said, or until it has enough.
func TestResumeGivenUp(t *testing.T) {
	for name, test := range map[string]struct {
		enough func(*connswap.Conn, *connswap.Stream, context.CancelFunc)
		want   error
		after  time.Duration
	}{
		"the director's time": {nil, &connswap.Error{Code: connswap.CodeLost}, time.Minute},
		"the context ends":    {func(_ *connswap.Conn, _ *connswap.Stream, cancel context.CancelFunc) { cancel() }, context.Canceled, 5 * time.Second},
		"the stream is closed": {
			func(_ *connswap.Conn, s *connswap.Stream, _ context.CancelFunc) { s.Close() }, connswap.ErrClosed, 5 * time.Second,
		},
		"the connection is closed": {
			func(c *connswap.Conn, _ *connswap.Stream, _ context.CancelFunc) { _ = c.Close() }, connswap.ErrClosed, 5 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				ctx, cancel := context.WithCancel(w.Context())
				defer cancel()
				conn, stream := w.resumable(ctx, fakedirector.Director{Play: func(s *fakedirector.Stream) {
					s.Assign()
					time.Sleep(10 * delay)
					_ = s.Conn.CloseWithError(wire.QUICLost, "")
					w.director.Crash()
				}})
				if test.enough != nil {
					time.AfterFunc(5*time.Second, func() { test.enough(conn, stream, cancel) })
				}
				start := time.Now()
				_, err := collect(stream)
				if took := time.Since(start); !errors.Is(err, test.want) || took < test.after-time.Second || took > test.after+2*time.Second {
					t.Errorf("got %v after %v; want %v after %v", err, took, test.want, test.after)
				}
			})
		})
	}
}
