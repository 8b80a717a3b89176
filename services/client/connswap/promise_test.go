package connswap_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Each broken promise ends the stream in its error, tells the director, and yields nothing of what broke it.
func TestBrokenPromises(t *testing.T) {
	swapTo := func(epoch, last uint64) wire.Message {
		return &wirepb.Swapped{FromWorker: "worker-a", ToWorker: "worker-b", Kind: "failover", Epoch: epoch, LastSequence: last}
	}
	for name, broken := range map[string]struct {
		play func(s *fakedirector.Stream) // after Assigned in epoch 1 and the tokens 1 and 2
		want error
	}{
		"gap":              {func(s *fakedirector.Stream) { s.Token(1, 4, "x") }, connswap.ErrSequence},
		"repeat":           {func(s *fakedirector.Stream) { s.Token(1, 2, "b") }, connswap.ErrSequence},
		"starts again":     {func(s *fakedirector.Stream) { s.Swap(); s.Token(2, 1, "a") }, connswap.ErrSequence},
		"sequence zero":    {func(s *fakedirector.Stream) { s.Token(1, 0, "x") }, connswap.ErrSequence},
		"swap loses":       {func(s *fakedirector.Stream) { s.Send(swapTo(2, 1)) }, connswap.ErrSequence},
		"swap invents":     {func(s *fakedirector.Stream) { s.Send(swapTo(2, 3)) }, connswap.ErrSequence},
		"swap to epoch 1":  {func(s *fakedirector.Stream) { s.Send(swapTo(1, 2)) }, connswap.ErrEpoch},
		"swap to epoch 0":  {func(s *fakedirector.Stream) { s.Send(swapTo(0, 2)) }, connswap.ErrEpoch},
		"zombie":           {func(s *fakedirector.Stream) { s.Swap(); s.Token(1, 3, "x") }, connswap.ErrEpoch},
		"zombie later":     {func(s *fakedirector.Stream) { s.Swap(); s.Token(2, 3, "c"); s.Token(1, 4, "x") }, connswap.ErrEpoch},
		"epoch untold":     {func(s *fakedirector.Stream) { s.Token(2, 3, "x") }, connswap.ErrEpoch},
		"assigned again":   {func(s *fakedirector.Stream) { s.Send(&wirepb.Assigned{Worker: "worker-b", Epoch: 2}) }, connswap.ErrFrame},
		"fewer tokens":     {func(s *fakedirector.Stream) { d := s.Finish(); d.Tokens = 1; s.Send(d) }, connswap.ErrCount},
		"more tokens":      {func(s *fakedirector.Stream) { d := s.Finish(); d.Tokens = 3; s.Send(d) }, connswap.ErrCount},
		"digest":           {func(s *fakedirector.Stream) { d := s.Finish(); d.Digest[0] ^= 1; s.Send(d) }, connswap.ErrDigest},
		"no digest":        {func(s *fakedirector.Stream) { d := s.Finish(); d.Digest = nil; s.Send(d) }, connswap.ErrDigest},
		"longer digest":    {func(s *fakedirector.Stream) { d := s.Finish(); d.Digest = append(d.Digest, 0); s.Send(d) }, connswap.ErrDigest},
		"silent end":       {func(*fakedirector.Stream) {}, connswap.ErrTruncated},
		"end in a frame":   {func(s *fakedirector.Stream) { raw(s, []byte{9, byte(wire.TypeToken), 1}) }, connswap.ErrTruncated},
		"end in a length":  {func(s *fakedirector.Stream) { raw(s, []byte{0x80}) }, connswap.ErrTruncated},
		"large token":      {func(s *fakedirector.Stream) { s.Say(1, strings.Repeat("x", wire.MaxChunk+1)) }, connswap.ErrFrame},
		"huge frame":       {func(s *fakedirector.Stream) { raw(s, quicvarint.Append(nil, 1<<40)) }, connswap.ErrFrame},
		"no type":          {func(s *fakedirector.Stream) { raw(s, []byte{0}) }, connswap.ErrFrame},
		"unknown type":     {func(s *fakedirector.Stream) { raw(s, []byte{1, 0x3f}) }, connswap.ErrFrame},
		"another protocol": {func(s *fakedirector.Stream) { s.Send(&wirepb.Heartbeat{}) }, connswap.ErrFrame},
		"not protobuf":     {func(s *fakedirector.Stream) { raw(s, []byte{2, byte(wire.TypeDone), 0xff}) }, connswap.ErrFrame},
		"short token":      {func(s *fakedirector.Stream) { raw(s, []byte{2, byte(wire.TypeToken), 0x40}) }, connswap.ErrFrame},
		"after the end":    {func(s *fakedirector.Stream) { s.Send(s.Finish(), s.Finish()) }, connswap.ErrFrame},
		"half after it":    {func(s *fakedirector.Stream) { s.Send(s.Finish()); raw(s, []byte{0x80}) }, connswap.ErrFrame},
		"after an error":   {func(s *fakedirector.Stream) { s.Send(wire.Errorf("x", "").Proto()); s.Say(1, "x") }, connswap.ErrFrame},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				told := make(chan struct{})
				stream := t.generate(t.Context(), func(s *fakedirector.Stream) {
					s.Assign()
					s.Say(1, "a", "b")
					broken.play(s)
					if !errors.Is(broken.want, connswap.ErrTruncated) {
						<-s.Context().Done() // STOP_SENDING
					}
					close(told)
				})
				events, err := collect(stream)
				var coded *connswap.Error
				if !errors.Is(err, broken.want) || !errors.As(err, &coded) || coded.Code != connswap.CodeProtocol {
					t.Fatalf("got %v, want %v", err, broken.want)
				}
				for _, event := range events {
					if token, ok := event.(connswap.Token); ok && !strings.Contains("abc", token.Text) {
						t.Errorf("yielded %+v", token)
					}
					if _, ok := event.(connswap.Done); ok {
						t.Errorf("yielded %+v", event)
					}
				}
				<-told
			})
		})
	}
}

// What needs a worker cannot come before one is assigned.
func TestNothingBeforeAssigned(t *testing.T) {
	for name, play := range map[string]func(s *fakedirector.Stream){
		"token": func(s *fakedirector.Stream) { s.Token(0, 1, "x") },
		"swap":  func(s *fakedirector.Stream) { s.Swap() },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				if events, err := collect(t.generate(t.Context(), play)); !errors.Is(err, connswap.ErrFrame) || len(events) > 0 {
					t.Errorf("got %v, %v", events, err)
				}
			})
		})
	}
}

// A worker may be assigned again as long as it has produced nothing.
func TestAssignedAgainBeforeTheFirstToken(t *testing.T) {
	inWorld(t, func(t *world) {
		events, err := collect(t.generate(t.Context(), func(s *fakedirector.Stream) {
			s.Assign()
			s.Send(&wirepb.Assigned{Worker: "worker-b", Epoch: 3})
			s.Say(3, "a")
			s.Send(s.Finish())
		}))
		if err != nil || len(events) != 4 || events[2].(connswap.Token).Worker != "worker-b" {
			t.Errorf("got %v, %v", events, err)
		}
	})
}

func raw(s *fakedirector.Stream, b []byte) { _, _ = s.Write(b) }
