package upstream

import (
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/enginetest"
	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
)

// TestSuite: with a server whose pieces are tokens the engine is like any other.
func TestSuite(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			enginetest.Run(t, func() engine.Engine { return engineOf(c.server, c.abilities, Options{}) }, c.request)
		})
		quiet(t, c.server)
	}
}

// TestSuiteOfServers: also behind scripted servers that tell the ids of each token.
func TestSuiteOfServers(t *testing.T) {
	s := servertest.New(servertest.VLLM, servertest.Options{})
	e := engineFor(t, servertest.VLLM, s, Options{})
	for name, req := range shapes() {
		t.Run(name, func(t *testing.T) {
			enginetest.Run(t, func() engine.Engine { return e }, req)
		})
	}
	idle(t, s)
}

// BenchmarkChunk is what a worker takes for one piece of an answer, beside what the server's stream takes.
func BenchmarkChunk(b *testing.B) {
	for name, behind := range map[string]int{"new": 0, "behind a replay": 200} {
		b.Run(name, func(b *testing.B) {
			d := plainDouble(0)
			d.script = words(behind + b.N + 1)
			e := engineOf(d, replayable, Options{})
			req := chat("")
			req.MaxTokens = len(d.script) + 1
			prefix := make([]engine.Chunk, behind)
			for i, p := range d.script[:behind] {
				prefix[i] = engine.Chunk{Text: p.Text, TokenIDs: p.IDs}
			}
			g, err := e.Open(b.Context(), req, prefix, ignore)
			if err != nil {
				b.Fatal(err)
			}
			defer g.Close() //nolint:errcheck // it never fails
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := g.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReplay is what a worker takes to compare one piece with what a stream has.
func BenchmarkReplay(b *testing.B) {
	c := &comparer{}
	script := words(b.N)
	prefix := make([]engine.Chunk, b.N)
	for i, p := range script {
		prefix[i] = engine.Chunk{Text: p.Text, TokenIDs: p.IDs}
	}
	if err := c.extend(prefix); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, p := range script {
		if err := c.take(api.Delta{Text: p.Text, IDs: p.IDs, Tokens: 1}); err != nil {
			b.Fatal(err)
		}
	}
}
