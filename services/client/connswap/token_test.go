package connswap

import (
	"context"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// endless is a director's stream that has tokens and no end.
type endless struct {
	sequence uint64
	frame    []byte
}

func (e *endless) Read(p []byte) (int, error) {
	e.sequence++
	e.frame = wire.AppendChunk(e.frame[:0], wire.Chunk{Epoch: 1, Sequence: e.sequence, Text: []byte("a token of usual length")})
	return copy(p, e.frame), nil
}

func endlessStream() *Stream {
	return &Stream{
		ctx: context.Background(), frames: wire.NewReader(&endless{}, frameLimit), ledger: ledger{worker: "a", epoch: 1},
		carrier: &carrier{prober: &prober{start: time.Now()}}, acked: time.Now().Add(time.Hour), // far from the next acknowledgement
	}
}

// TestTokenAllocates: reading a token allocates its text, and nothing else.
func TestTokenAllocates(t *testing.T) {
	s := endlessStream()
	allocated := testing.AllocsPerRun(1000, func() {
		if _, err := s.read(); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 1 {
		t.Errorf("%v allocations for a token", allocated)
	}
}

// BenchmarkRead is what a token costs a client beyond its QUIC stack, where a thousand streams have one each in turn.
func BenchmarkRead(b *testing.B) {
	all := make([]*Stream, 1000)
	for i := range all {
		all[i] = endlessStream()
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := all[i%len(all)].read(); err != nil {
			b.Fatal(err)
		}
	}
}
