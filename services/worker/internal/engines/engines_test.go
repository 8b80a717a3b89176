package engines_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/engines"
	"github.com/connswap/connswap/shared/wire"
)

var names = []string{"markov", "counter", "stateful"}

var options = engines.Options{StateBytes: 3 << 10}

var prompts = []string{
	"", "a", "Tell me about the keeper of the light.", "river", "I", "...", "\x00\xff\xfe", "日本語",
	strings.Repeat("the wind and the sea ", 5000),
}

func ignore(int, int) {}

func chunks(texts ...[]byte) []engine.Chunk {
	all := make([]engine.Chunk, len(texts))
	for i, text := range texts {
		all[i].Text = text
	}
	return all
}

// generate returns n tokens after prefix, copied.
func generate(t testing.TB, e engine.Engine, req engine.Request, prefix [][]byte, n int) [][]byte {
	t.Helper()
	g, err := e.Open(t.Context(), req, chunks(prefix...), ignore)
	if err != nil {
		t.Fatalf("Open(%.40q, seed %d) after %d tokens: %v", req.Prompt, req.Seed, len(prefix), err)
	}
	tokens := make([][]byte, n)
	for i := range tokens {
		token, err := g.Next(t.Context())
		if err != nil {
			t.Fatalf("token %d: %v", len(prefix)+i+1, err)
		}
		tokens[i] = bytes.Clone(token.Text)
	}
	if err := g.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return tokens
}

func TestContinuesExactlyAtEveryCut(t *testing.T) {
	const n = 200
	for _, name := range names {
		ours, theirs := build(t, name), build(t, name) // as on two workers
		for _, prompt := range prompts {
			for _, seed := range []uint64{0, 1, 42, 1<<64 - 1} {
				req := engine.Request{Prompt: prompt, Seed: seed}
				whole := generate(t, ours, req, nil, n)
				for cut := range n {
					rest := generate(t, theirs, req, whole[:cut], n-cut)
					if !slices.EqualFunc(rest, whole[cut:], bytes.Equal) {
						t.Fatalf("%s, prompt %.40q, seed %d: cut after %d tokens, the text goes on differently", name, prompt, seed, cut)
					}
				}
			}
		}
	}
}

func FuzzContinuation(f *testing.F) {
	for _, prompt := range prompts[:8] {
		f.Add(prompt, uint64(7), uint16(3))
	}
	all := make([]engine.Engine, len(names))
	for i, name := range names {
		all[i] = build(f, name)
	}
	f.Fuzz(func(t *testing.T, prompt string, seed uint64, cut uint16) {
		n := int(cut)%400 + 20
		at := int(cut) % n
		for _, e := range all {
			req := engine.Request{Prompt: prompt, Seed: seed}
			whole := generate(t, e, req, nil, n)
			for i, token := range whole {
				if len(token) == 0 || len(token) > wire.MaxChunk || !utf8.Valid(token) {
					t.Fatalf("%s: token %d is %q", e.Name(), i+1, token)
				}
			}
			if rest := generate(t, e, req, whole[:at], n-at); !slices.EqualFunc(rest, whole[at:], bytes.Equal) {
				t.Fatalf("%s: cut after %d tokens, the text goes on differently", e.Name(), at)
			}
		}
	})
}

func TestRequestsDiffer(t *testing.T) {
	for _, name := range []string{"markov", "stateful"} {
		requestsDiffer(t, build(t, name))
	}
}

func requestsDiffer(t *testing.T, e engine.Engine) {
	seen := make(map[string]engine.Request)
	for _, prompt := range prompts {
		for seed := range uint64(8) {
			req := engine.Request{Prompt: prompt, Seed: seed}
			text := string(bytes.Join(generate(t, e, req, nil, 100), nil))
			if other, ok := seen[text]; ok {
				t.Errorf("%s: %.40q with seed %d reads as %.40q with seed %d", e.Name(), prompt, seed, other.Prompt, other.Seed)
			}
			seen[text] = req
		}
	}
}

func TestMarkovReadsLikeLanguage(t *testing.T) {
	e := build(t, "markov")
	tokens := generate(t, e, engine.Request{Prompt: "What do the keepers of the lights do?", Seed: 7}, nil, 5000)
	text := string(bytes.Join(tokens, nil))
	t.Logf("%.800s …", text)
	if !strings.Contains(strings.SplitN(text, ".", 2)[0], "keeper") {
		t.Errorf("the first sentence has nothing to do with the prompt: %.80q", text)
	}
	words := make(map[string]bool)
	for _, word := range strings.Fields(text) {
		words[word] = true
	}
	if len(words) < 600 {
		t.Errorf("only %d different words in %d tokens", len(words), len(tokens))
	}
	for _, bad := range []string{"  ", " .", " ,", ". a", "? a", "\n\n\n"} {
		if strings.Contains(text, bad) {
			t.Errorf("the text contains %q", bad)
		}
	}
	if n := strings.Count(text, "\n\n"); n < 5 || n > 200 {
		t.Errorf("%d paragraphs", n)
	}
}

func TestMarkovRefusesForeignPrefixes(t *testing.T) {
	e := build(t, "markov")
	for _, prefix := range [][]string{{"token-1 "}, {"The", " internet"}, {"", "", ""}, {" seal", " seal"}} {
		var tokens [][]byte
		for _, token := range prefix {
			tokens = append(tokens, []byte(token))
		}
		if _, err := e.Open(t.Context(), engine.Request{}, chunks(tokens...), ignore); err == nil {
			t.Errorf("%q: no error", prefix)
		}
	}
}

func TestCounter(t *testing.T) {
	e := build(t, "counter")
	got := string(bytes.Join(generate(t, e, engine.Request{}, make([][]byte, 8), 3), nil))
	if want := "token-9 token-10 token-11 "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFingerprints(t *testing.T) {
	seen := make(map[string]string)
	for _, name := range names {
		a, b := build(t, name), build(t, name)
		if a.Name() != name {
			t.Errorf("%s calls itself %s", name, a.Name())
		}
		if a.Fingerprint() != b.Fingerprint() {
			t.Errorf("%s: %s and %s", name, a.Fingerprint(), b.Fingerprint())
		}
		if other, ok := seen[a.Fingerprint()]; ok {
			t.Errorf("%s has the fingerprint of %s", name, other)
		}
		seen[a.Fingerprint()] = name
	}
}

func TestUnknownEngine(t *testing.T) {
	_, err := engines.New("makrov", options)
	if err == nil || !strings.Contains(err.Error(), "counter, markov, stateful") {
		t.Errorf("got %v", err)
	}
}

func build(t testing.TB, name string) engine.Engine {
	t.Helper()
	e, err := engines.New(name, options)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func BenchmarkMarkovNext(b *testing.B) {
	g, err := build(b, "markov").Open(b.Context(), engine.Request{Prompt: "river", Seed: 1}, nil, ignore)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarkovOpen(b *testing.B) {
	e := build(b, "markov")
	req := engine.Request{Prompt: "Tell me about the river", Seed: 1}
	prefix := generate(b, e, req, nil, 10000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Open(b.Context(), req, chunks(prefix...), ignore); err != nil {
			b.Fatal(err)
		}
	}
}
