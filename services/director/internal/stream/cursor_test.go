package stream_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestResume: a client that stands behind any record of a stream gets exactly what follows it, and one that stands elsewhere a
// refusal with a code of its own. What it says that it has is acknowledged.
func TestResume(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	r := newRecord(stream.Config{MaxBytes: 1 << 20, MaxTokens: 1 << 20, Window: 1 << 20})
	r.serve(1)
	for range 300 { // some blocks of each size
		if random.IntN(5) == 0 {
			r.Mark(&wirepb.Waiting{Reason: "none"})
			continue
		}
		text := bytes.Repeat([]byte("x"), 1+random.IntN(300))
		r.Append(wire.Chunk{Epoch: 1, Sequence: r.Len() + 1, Text: text}, time.Now())
	}
	r.Close(&wirepb.Done{})
	all := r.take(1 << 10)

	var digest session.Rolling
	at := stream.Stand{}
	for rest := all; len(rest) > 0; at.Records++ {
		sum := digest.Digest()
		at.Digest = sum[:]
		cursor, err := r.Resume(at)
		if err != nil {
			t.Fatalf("record %d: %v", at.Records, err)
		}
		if r.cursor = cursor; !bytes.Equal(r.take(1<<10), rest) {
			t.Fatalf("behind record %d something else follows", at.Records)
		}
		refused := func(name string, change func(*stream.Stand), code wire.Code) {
			t.Helper()
			other := at
			change(&other)
			if _, err := r.Resume(other); !errors.Is(err, &wire.Error{Code: code}) {
				t.Errorf("record %d, %s: %v", at.Records, name, err)
			}
		}
		refused("ahead", func(s *stream.Stand) { s.Records = 304 }, wire.CodeResumeAhead)
		refused("another sequence", func(s *stream.Stand) { s.Sequence++ }, wire.CodeResumeDigest)
		refused("another text", func(s *stream.Stand) { s.Digest = bytes.Repeat([]byte{1}, 32) }, wire.CodeResumeDigest)
		if at.Records > 0 {
			refused("behind", func(s *stream.Stand) { s.Records-- }, wire.CodeResumeBehind)
		}
		f, size := wire.ParseFrame(rest)
		if rest = rest[size:]; f.Type == wire.TypeToken {
			token, err := wire.ParseChunk(f)
			if err != nil {
				t.Fatal(err)
			}
			digest.Add(token)
			at.Sequence++
		}
	}
	if len(r.notices) > 0 {
		t.Fatalf("told %v before the last record was acknowledged", r.notices)
	}
	r.Acknowledge(at.Records + 1)
	r.Acknowledge(at.Records)
	r.Acknowledge(at.Records)
	if len(r.notices) != 1 || r.notices[0].Kind != stream.Acknowledged {
		t.Errorf("told %v", r.notices)
	}
}
