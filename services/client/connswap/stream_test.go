package connswap_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestStreamYieldsWhatWasGenerated(t *testing.T) {
	inWorld(t, func(t *world) {
		var request *wirepb.Request
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			request = s.Request
			s.Assign()
			s.Say(1, "Once", " upon", "")
			s.Send(s.Finish())
		})
		events, err := collect(stream)
		if err != nil {
			t.Fatal(err)
		}
		want := []connswap.Event{
			connswap.Assigned{Worker: "worker-a", Epoch: 1, Continuity: "exact"},
			connswap.Token{Sequence: 1, Epoch: 1, Worker: "worker-a", Text: "Once", Tokens: 1},
			connswap.Token{Sequence: 2, Epoch: 1, Worker: "worker-a", Text: " upon", Tokens: 1},
			connswap.Token{Sequence: 3, Epoch: 1, Worker: "worker-a", Tokens: 1},
			connswap.Done{
				FinishReason: "length", Tokens: 3, Continuity: "exact",
				Digest: session.DigestOf([]byte("Once"), []byte(" upon"), nil),
			},
		}
		if !reflect.DeepEqual(events, want) {
			t.Errorf("events are\n%v, want\n%v", events, want)
		}
		if stream.ID() != 1 {
			t.Errorf("stream has the id %d", stream.ID())
		}
		if request.GetPrompt() != "hello" || request.GetMaxTokens() != 5 || request.GetSeed() != 7 {
			t.Errorf("the director was asked for %v", request)
		}
		if events, err := collect(stream); len(events) > 0 || err != nil {
			t.Errorf("a complete stream yields %v, %v", events, err)
		}
	})
}

func TestSwapComesWithItsGapAndProof(t *testing.T) {
	inWorld(t, func(t *world) {
		conn := t.dial(func(s *fakedirector.Stream) {
			s.Assign()
			for _, text := range []string{"a", "b", "c", "d"} {
				s.Say(1, text)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(200 * time.Millisecond)
			s.Swap()
			time.Sleep(30 * time.Millisecond)
			s.Say(2, "e")
			s.Send(s.Finish())
		})
		before, err := conn.Proof()
		if err != nil || before.ODCID == "" || before.Exporter == "" {
			t.Fatalf("proof is %v, %v", before, err)
		}
		stream, err := conn.Generate(t.Context(), connswap.Request{})
		if err != nil {
			t.Fatal(err)
		}
		events, err := collect(stream)
		if err != nil || len(events) != 8 {
			t.Fatalf("got %v, %v", events, err)
		}
		swapped, ok := events[5].(connswap.Swapped)
		if !ok {
			t.Fatalf("got %v before the first token of the new worker", events[5])
		}
		swapped.Gap = swapped.Gap.Round(time.Millisecond)
		swapped.Interval = swapped.Interval.Round(time.Millisecond)
		want := connswap.Swapped{
			From: "worker-a", To: "worker-b", Kind: "failover", Cause: "tether", Epoch: 2, Sequence: 4, Continuity: "exact",
			Gap: 330 * time.Millisecond, Interval: 100 * time.Millisecond, Proof: before,
		}
		if swapped != want {
			t.Errorf("swap is\n%+v, want\n%+v", swapped, want)
		}
		if token := events[6].(connswap.Token); token.Worker != "worker-b" || token.Sequence != 5 {
			t.Errorf("then came %+v", token)
		}
	})
}

func TestProofIsTheDirectorsOwn(t *testing.T) {
	inWorld(t, func(t *world) {
		d := t.start(fakedirector.Director{})
		var proofs []connswap.Proof
		for range 2 {
			conn, err := connswap.Dial(t.Context(), "director:61000", t.options())
			if err != nil {
				t.Fatal(err)
			}
			mine, err := conn.Proof()
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := quicnet.ReadProof(<-d.Conns)
			if err != nil || mine != theirs {
				t.Errorf("proof is %v here and %v there, %v", mine, theirs, err)
			}
			proofs = append(proofs, mine)
			conn.Close() //nolint:errcheck // not under test
		}
		if proofs[0].ODCID == proofs[1].ODCID || proofs[0].Exporter == proofs[1].Exporter {
			t.Errorf("two connections have the same proof %v", proofs)
		}
	})
}

// Several swaps without a token between them: each is told once, and the gap belongs to the last one.
func TestSwapsWithoutTokens(t *testing.T) {
	inWorld(t, func(t *world) {
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Assign()
			s.Say(1, "a")
			s.Swap()
			s.Send(&wirepb.Swapped{FromWorker: "worker-b", ToWorker: "worker-c", Epoch: 4, LastSequence: 1})
			time.Sleep(50 * time.Millisecond)
			s.Say(4, "b")
			s.Send(&wirepb.Swapped{FromWorker: "worker-c", ToWorker: "worker-a", Epoch: 5, LastSequence: 2})
			s.Send(s.Finish())
		})
		events, err := collect(stream)
		if err != nil {
			t.Fatal(err)
		}
		var story []string
		for _, event := range events {
			switch e := event.(type) {
			case connswap.Token:
				story = append(story, e.Text)
			case connswap.Swapped:
				story = append(story, e.From+">"+e.To+" "+e.Gap.Round(time.Millisecond).String())
			case connswap.Done:
				story = append(story, "done")
			}
		}
		const want = "a, worker-a>worker-b 0s, worker-b>worker-c 50ms, b, worker-c>worker-a 0s, done"
		if got := strings.Join(story, ", "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestWaitingIsToldAtOnce(t *testing.T) {
	inWorld(t, func(t *world) {
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Send(&wirepb.Waiting{Reason: "no worker is available", TimeoutMs: 30_000})
			time.Sleep(10 * time.Second)
			s.Send(wire.Errorf(wire.CodeNoWorker, "none came").Proto())
		})
		start := time.Now()
		for event, err := range stream.Events() {
			if waiting, ok := event.(connswap.Waiting); ok {
				if waiting != (connswap.Waiting{Reason: "no worker is available", Timeout: 30 * time.Second}) {
					t.Errorf("got %+v", waiting)
				}
				if after := time.Since(start); after > time.Second {
					t.Errorf("told after %v", after)
				}
				continue
			}
			var coded *connswap.Error
			if !errors.As(err, &coded) || coded.Code != connswap.CodeNoWorker || coded.Message != "none came" {
				t.Errorf("got %v, %v", event, err)
			}
		}
		if _, err := collect(stream); !errors.Is(err, &connswap.Error{Code: connswap.CodeNoWorker}) {
			t.Errorf("reading on yields %v", err)
		}
	})
}

func TestTokensLeavesTheRestOut(t *testing.T) {
	inWorld(t, func(t *world) {
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Assign()
			s.Say(1, "a")
			s.Swap()
			s.Say(2, "b")
			s.Send(wire.Errorf(wire.CodePoison, "it kills").Proto())
		})
		var text strings.Builder
		var last error
		for token, err := range stream.Tokens() {
			text.WriteString(token.Text)
			last = err
		}
		if text.String() != "ab" || !errors.Is(last, &connswap.Error{Code: connswap.CodePoison}) {
			t.Errorf("got %q, %v", text.String(), last)
		}
	})
}

func TestLargestTokenPasses(t *testing.T) {
	inWorld(t, func(t *world) {
		text := strings.Repeat("x", wire.MaxChunk)
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Assign()
			s.Say(1, text, text)
			s.Send(s.Finish())
		})
		events, err := collect(stream)
		if err != nil || len(events) != 4 || events[2].(connswap.Token).Text != text {
			t.Errorf("got %d events, %v", len(events), err)
		}
	})
}

// Every way of leaving a stream before its end reaches the director at once.
func TestCancelReachesTheDirector(t *testing.T) {
	type (
		cancelFunc = context.CancelCauseFunc
		each       = func(connswap.Token) bool // whether to read on
	)
	for name, way := range map[string]struct {
		leave func(s *connswap.Stream, cancel cancelFunc) each
		want  error
	}{
		"break": {func(*connswap.Stream, cancelFunc) each {
			return func(connswap.Token) bool { return false }
		}, connswap.ErrClosed},
		"close": {func(s *connswap.Stream, _ cancelFunc) each {
			time.AfterFunc(time.Second, s.Close)
			return readOn
		}, connswap.ErrClosed},
		"context": {func(_ *connswap.Stream, cancel cancelFunc) each {
			time.AfterFunc(time.Second, func() { cancel(nil) })
			return readOn
		}, context.Canceled},
		"context with a cause, within the loop": {func(_ *connswap.Stream, cancel cancelFunc) each {
			return func(connswap.Token) bool { cancel(errors.New("interrupt")); return true }
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				heard := make(chan time.Time, 1)
				ctx, cancel := context.WithCancelCause(t.Context())
				stream := t.generate(ctx, func(s *fakedirector.Stream) {
					s.Assign()
					s.Say(1, "a", "b")
					<-s.Context().Done()
					heard <- time.Now()
				})
				use := way.leave(stream, cancel)
				for token, err := range stream.Tokens() {
					if err == nil && !use(token) {
						break
					}
				}
				left := time.Now()
				if after := (<-heard).Sub(left); after > 2*delay {
					t.Errorf("the director heard of it after %v", after)
				}
				if _, err := collect(stream); !errors.Is(err, way.want) {
					t.Errorf("reading on yields %v", err)
				}
				stream.Close()
				cancel(nil)
			})
		})
	}
}

func readOn(connswap.Token) bool { return true }

// A client that does not read costs the director its window and no more. When it reads, nothing is missing.
func TestSlowReaderHoldsTheDirectorBackAndLosesNothing(t *testing.T) {
	inWorld(t, func(t *world) {
		const tokens = 1000
		var sent *fakedirector.Stream
		stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
			sent = s
			s.Assign()
			for range tokens {
				s.Say(1, strings.Repeat("x", 1000))
			}
			s.Send(s.Finish())
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := sent.Sent(); n < 30 || n > 130 {
			t.Errorf("%d tokens of 1000 bytes fit into a client that does not read", n)
		}
		events, err := collect(stream)
		if err != nil || len(events) != tokens+2 {
			t.Errorf("got %d events, %v", len(events), err)
		}
	})
}

func TestStreamsAreNumberedAndForgotten(t *testing.T) {
	inWorld(t, func(t *world) {
		conn := t.dial(func(s *fakedirector.Stream) {
			s.Assign()
			s.Send(s.Finish())
		})
		for i := range uint64(500) { // the director allows 100 at once
			stream, err := conn.Generate(t.Context(), connswap.Request{})
			if err != nil {
				t.Fatal(err)
			}
			if stream.ID() != i+1 {
				t.Fatalf("stream %d has the id %d", i+1, stream.ID())
			}
			if _, err := collect(stream); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestGenerateRefusesWhatCannotBeSent(t *testing.T) {
	inWorld(t, func(t *world) {
		conn := t.dial(nil)
		for name, prompt := range map[string]string{
			"not UTF-8": "\xff", "too long": strings.Repeat("x", wire.MaxPrompt+1),
		} {
			if _, err := conn.Generate(t.Context(), connswap.Request{Prompt: prompt}); !errors.Is(err, &connswap.Error{Code: connswap.CodeInvalid}) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

// A director that does not want all of a prompt says why, and the client hears it.
func TestRefusedPromptTellsWhy(t *testing.T) {
	inWorld(t, func(t *world) {
		t.start(fakedirector.Director{Raw: func(s *fakedirector.Stream) {
			s.CancelRead(wire.StreamRefused)
			s.Send(wire.Errorf(wire.CodeLimit, "too long").Proto())
		}})
		conn, err := connswap.Dial(t.Context(), "director:61000", t.options())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // not under test
		stream, err := conn.Generate(t.Context(), connswap.Request{Prompt: strings.Repeat("x", 1<<20)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := collect(stream); !errors.Is(err, &connswap.Error{Code: connswap.CodeLimit}) {
			t.Errorf("got %v", err)
		}
	})
}
