package openai

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

var update = flag.Bool("update", false, "write testdata anew")

// newExchange returns one whose ids and times are always the same.
func newExchange(t *testing.T, of api, body string) *exchange {
	t.Helper()
	ask, err := parse(of, []byte(body), 1000)
	require.NoError(t, err)
	e := &exchange{ask: ask, promise: verified, told: true}
	e.identify()
	e.id = strings.Replace(e.id, e.suffix, "0123456789abcdef0123456789abcdef", 1)
	e.suffix, e.created = "0123456789abcdef0123456789abcdef", time.Unix(1700000000, 0)
	return e
}

// encode has an encoder take a log.
func encode(to encoder, frames []byte) {
	(&decoder{to: to}).read(frames)
}

// script is what a log may have.
type script struct{ frames []byte }

func (s *script) chunk(text string, rich *wire.Rich) *script {
	s.frames = wire.AppendChunk(s.frames, wire.Chunk{Epoch: 1, Sequence: 1, Text: []byte(text), Rich: rich})
	return s
}

func (s *script) say(m wire.Message) *script {
	s.frames = wire.Append(s.frames, m)
	return s
}

func on(channel wire.Channel, choice uint32, data string) *wire.Rich {
	return &wire.Rich{Channel: channel, Choice: choice, Tokens: 1, Data: []byte(data)}
}

var scripts = map[string]struct {
	body    string
	choices int
	script  *script
}{
	"text": {
		script: (&script{}).chunk("Hello, \"wor", nil).chunk("ld\"\n", nil).chunk("\xf0\x9f", nil).chunk("\x98\x80!", nil).
			say(&wirepb.Done{Continuity: verified, FinishReason: "stop", Tokens: 4, Swaps: 2, Usage: &wirepb.Usage{PromptTokens: 3, CompletionTokens: 5, ReasoningTokens: 1}}),
	},
	"reasoning, refusal": {
		script: (&script{}).chunk("Let me ", on(wire.Reasoning, 0, "")).chunk("think", on(wire.Reasoning, 0, "")).chunk("I ", nil).
			chunk("cannot", on(wire.Refusal, 0, "")).say(&wirepb.Done{Continuity: verified, FinishReason: "content_filter", Tokens: 4}),
	},
	"tools": {
		script: (&script{}).chunk("Well", nil).
			chunk("weather", on(wire.ToolCall, 0, `{"call":{"index":0}}`)).chunk(`{"city":`, on(wire.ToolCall, 0, "")).chunk(`"Paris"}`, on(wire.ToolCall, 0, "")).
			chunk("shell", on(wire.ToolCall, 0, `{"call":{"index":1,"type":"custom"}}`)).chunk("ls -l", on(wire.ToolCall, 0, "")).
			say(&wirepb.Done{Continuity: verified, FinishReason: "tool_calls", Tokens: 6}),
	},
	"logprobs": {
		script: (&script{}).chunk("a", on(wire.Content, 0, `{"logprobs":{"content":[{"token":"a","logprob":-0.5}],"refusal":null}}`)).
			chunk("b", on(wire.Content, 0, `{"logprobs":{"content":[{"token":"b","logprob":-1}],"refusal":null}}`)).
			say(&wirepb.Done{Continuity: verified, FinishReason: "length", Tokens: 2}),
	},
	"nothing": {script: (&script{}).say(&wirepb.Done{Continuity: verified, FinishReason: "stop"})},
	"failure": {script: (&script{}).chunk("Hel", nil).say(&wirepb.Error{Code: string(wire.CodePoison), Message: "3 workers died in a row"})},
	"half a character at the end": {
		script: (&script{}).chunk("caf\xc3", nil).say(&wirepb.Done{Continuity: verified, FinishReason: "length", Tokens: 1}),
	},
	"two choices": {
		choices: 2,
		script: (&script{}).chunk("one", nil).chunk("un", on(wire.Content, 1, "")).chunk("\xe2\x82", on(wire.Content, 1, "")).chunk(" two", nil).
			chunk("\xac", on(wire.Content, 1, "")).say(&wirepb.Done{Continuity: verified, FinishReason: "stop", FinishReasons: []string{"stop", "length"}, Tokens: 5}),
	},
}

var bodies = map[api]map[string]any{
	chat:        {"model": "m", "messages": []any{map[string]string{"role": "user", "content": "Hi"}}, "stream_options": map[string]bool{"include_usage": true}},
	completions: {"model": "m", "prompt": "Hi"},
	responses:   {"model": "m", "input": "Hi", "metadata": map[string]string{"a": "b"}},
}

// TestShapes holds what clients are sent against files that people have read.
func TestShapes(t *testing.T) {
	for of, fields := range bodies {
		for name, s := range scripts {
			if s.choices > 1 && of == responses {
				continue
			}
			t.Run(string(of)+"/"+name, func(t *testing.T) {
				if s.choices > 1 {
					fields["n"] = s.choices
				} else {
					delete(fields, "n")
				}
				body, err := json.Marshal(fields)
				require.NoError(t, err)
				e := newExchange(t, of, string(body))
				out := &events{}
				streamed := encoder(newResponse(e, out))
				if of != responses {
					streamed = newChatStream(e, out)
				}
				encode(streamed, s.script.frames)
				whole := documenter(newResponse(e, nil))
				if of != responses {
					whole = newChatWhole(e)
				}
				encode(whole, s.script.frames)
				document, failed := whole.document()
				if failed != nil {
					document = failureOf(failed).body()
				}
				checkEvents(t, out.buf)
				got := "# streamed\n\n" + string(out.buf) + "# whole\n\n" + indented(t, document) + "\n"
				path := filepath.Join("testdata", string(of), strings.NewReplacer(" ", "_", ",", "").Replace(name)+".txt")
				if *update {
					require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
					require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
				}
				want, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, string(want), got)
			})
		}
	}
}

func indented(t *testing.T, document []byte) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, json.Indent(&b, document, "", "  "), "%s", document)
	return b.String()
}

// checkEvents checks that each event has data that are JSON, on one line.
func checkEvents(t *testing.T, stream []byte) {
	t.Helper()
	require.True(t, utf8.Valid(stream))
	for block := range strings.SplitSeq(strings.TrimSuffix(string(stream), "\n\n"), "\n\n") {
		lines := strings.Split(block, "\n")
		data, ok := strings.CutPrefix(lines[len(lines)-1], "data: ")
		require.True(t, ok, "%q", block)
		require.True(t, data == "[DONE]" || json.Valid([]byte(data)), "%s", data)
	}
}

// TestAgain encodes a stream again for a client that has some of its events: what it gets follows these, byte for byte.
func TestAgain(t *testing.T) {
	for _, of := range []api{chat, responses} {
		body, err := json.Marshal(bodies[of])
		require.NoError(t, err)
		e := newExchange(t, of, string(body))
		write := func(skip uint64) *events {
			out := &events{skip: skip, ids: of == chat}
			if of == chat {
				encode(newChatStream(e, out), scripts["tools"].script.frames)
			} else {
				encode(newResponse(e, out), scripts["tools"].script.frames)
			}
			return out
		}
		whole := write(0)
		blocks := strings.SplitAfter(string(whole.buf), "\n\n")
		for skip := range whole.count + 1 {
			require.Equal(t, strings.Join(blocks[skip:], ""), string(write(skip).buf), "%s after %d", of, skip)
		}
	}
}

// TestCuts decodes a text that is cut into chunks at every byte, and is always the same one.
func TestCuts(t *testing.T) {
	const text = "aé€😀b\xff\xe2\x82z"
	want := strings.ToValidUTF8("aé€😀b\xff\xe2\x82z", "\uFFFD")
	want = strings.Replace(want, "b\uFFFDz", "b\uFFFD\uFFFD\uFFFDz", 1) // a mark for each byte
	for size := 1; size <= len(text); size++ {
		s := &script{}
		for from := 0; from < len(text); from += size {
			s.chunk(text[from:min(from+size, len(text))], nil)
		}
		c := newChatWhole(newExchange(t, chat, `{"messages":[{"role":"user","content":"x"}]}`))
		encode(c, s.say(&wirepb.Done{Continuity: verified, FinishReason: "stop"}).frames)
		require.Equal(t, want, string(c.choices[0].texts[wire.Content]), "chunks of %d bytes", size)
	}
}

// FuzzString holds strings that were appended by hand against the standard library.
func FuzzString(f *testing.F) {
	f.Add("\x00\x1f\"\\ \u2028<>&é\x7f")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			t.Skip()
		}
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil || back != s {
			t.Errorf("%q became %q (%v)", s, back, err)
		}
	})
}
