package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/shared/wire"
)

// Short forms of chunks of a stream and of pieces of an answer.
func content(text string) engine.Chunk { return engine.Chunk{Text: []byte(text)} }

func on(channel engine.Channel, text string) engine.Chunk {
	return engine.Chunk{Text: []byte(text), Channel: channel}
}

func ofChoice(choice int, text string) engine.Chunk {
	return engine.Chunk{Text: []byte(text), Choice: choice}
}

func ofCall(index int, text string) engine.Chunk {
	return engine.Chunk{Text: []byte(text), Channel: engine.ToolCall, Data: fmt.Appendf(nil, `{"call":{"index":%d}}`, index)}
}

func withIDs(text string, ids ...uint32) engine.Chunk {
	c := engine.Chunk{Text: []byte(text), TokenIDs: ids, Tokens: len(ids)}
	if len(ids) == 0 {
		c.Tokens = engine.NoTokens
	}
	return c
}

// deltaOf is a chunk as a server makes it.
func deltaOf(c engine.Chunk) api.Delta {
	d := api.Delta{Choice: c.Choice, Channel: c.Channel, Text: c.Text, IDs: c.TokenIDs, Tokens: c.Count()}
	if detail := wire.ParseDetail(c.Data); detail != nil {
		d.Call, d.Logprobs = detail.Call, detail.Logprobs
	}
	return d
}

// compared has a comparer compare an answer with a stream, and returns what is new.
func compared(stream, answer []engine.Chunk) (new []piece, c *comparer, err error) {
	c = &comparer{}
	if err := c.extend(stream); err != nil {
		return nil, c, err
	}
	for _, chunk := range answer {
		if err := c.take(deltaOf(chunk)); err != nil {
			return new, c, err
		}
		for p, ok := c.next(); ok; p, ok = c.next() {
			new = append(new, p)
		}
	}
	return new, c, c.ended()
}

// said is new pieces in short.
func said(pieces []piece) string {
	var b strings.Builder
	for _, p := range pieces {
		fmt.Fprintf(&b, "%d", p.Choice)
		switch {
		case p.name:
			fmt.Fprintf(&b, "!%d", p.call)
		case p.channel == engine.ToolCall:
			fmt.Fprintf(&b, ".%d", p.call)
		case p.channel != engine.Content:
			b.WriteByte("crf"[p.channel])
		}
		fmt.Fprintf(&b, ":%s ", p.Text)
		if p.IDs != nil {
			fmt.Fprintf(&b, "%d ", p.IDs)
		}
	}
	return strings.TrimSpace(b.String())
}

type chunks = []engine.Chunk

func TestComparer(t *testing.T) {
	tests := map[string]struct {
		stream, answer chunks
		new            string
		differs        string // in words that the error has
	}{
		"nothing before":         {nil, chunks{content("a")}, "0:a", ""},
		"equal":                  {chunks{content("a"), content("b")}, chunks{content("ab"), content("c")}, "0:c", ""},
		"a seam within a piece":  {chunks{content("ab")}, chunks{content("a"), content("bcd")}, "0:cd", ""},
		"a seam within an emoji": {chunks{content("a\xf0\x9f")}, chunks{content("a😀b")}, "0:\x98\x80b", ""},
		"another byte":           {chunks{content("abc")}, chunks{content("ab"), content("d")}, "", `content of choice 0, byte 2: content "d" here and content "c"`},
		"shorter":                {chunks{content("abc")}, chunks{content("ab")}, "", `byte 2: the end here and content "c"`},
		"nothing at all":         {chunks{content("abc")}, nil, "", `byte 0: the end here`},
		"reasoning before content": {
			chunks{on(engine.Reasoning, "think"), content("say")}, chunks{on(engine.Reasoning, "th"), on(engine.Reasoning, "ink"), content("sayso")}, "0:so", "",
		},
		"content before reasoning": {
			chunks{on(engine.Reasoning, "think"), content("say")}, chunks{content("say"), on(engine.Reasoning, "think")}, "", `content "say" here and reasoning "think"`,
		},
		"longer reasoning": {
			chunks{on(engine.Reasoning, "think"), content("say")}, chunks{on(engine.Reasoning, "thinks")}, "", `reasoning "s" here and content "say"`,
		},
		"refused":  {chunks{on(engine.Refusal, "no")}, chunks{on(engine.Refusal, "no, ")}, "0f:,", ""},
		"accepted": {chunks{on(engine.Refusal, "no")}, chunks{content("no")}, "", `content "no" here and refusal "no"`},
		"choices in another order": {
			chunks{ofChoice(0, "a"), ofChoice(1, "x"), ofChoice(0, "b")}, chunks{ofChoice(1, "xy"), ofChoice(0, "abc"), ofChoice(1, "z")}, "1:y 0:c 1:z", "",
		},
		"one choice differs": {
			chunks{ofChoice(0, "a"), ofChoice(1, "x")}, chunks{ofChoice(0, "ab"), ofChoice(1, "y")}, "", `choice 1, byte 0`,
		},
		"one choice is shorter": {chunks{ofChoice(0, "a"), ofChoice(1, "x")}, chunks{ofChoice(0, "ab")}, "", `choice 1, byte 0: the end`},
		"a tool call": {
			chunks{ofCall(0, "f"), ofCall(0, `{"a"`)}, chunks{ofCall(0, "f"), ofCall(0, `{"a":`), ofCall(0, "1}"), ofCall(1, "g")}, "0.0:: 0.0:1} 0!1:g", "",
		},
		"another tool":            {chunks{ofCall(0, "f")}, chunks{ofCall(0, "fg")}, "", `tool "fg" here and tool "f"`},
		"a name is no argument":   {chunks{ofCall(0, "f"), ofCall(0, "x{}")}, chunks{ofCall(0, "fx"), ofCall(0, "{}")}, "", `tool "fx" here and tool "f"`},
		"other arguments":         {chunks{ofCall(0, "f"), ofCall(0, "{1}")}, chunks{ofCall(0, "f"), ofCall(0, "{2}")}, "", `tool call 0 of choice 0, byte 1`},
		"calls beside each other": {chunks{ofCall(0, "f"), ofCall(1, "g"), ofCall(0, "1"), ofCall(1, "2")}, chunks{ofCall(0, "f"), ofCall(0, "1"), ofCall(1, "g"), ofCall(1, "23")}, "0.1:3", ""},
		"fewer calls":             {chunks{ofCall(0, "f"), ofCall(1, "g")}, chunks{ofCall(0, "f"), ofCall(0, "1")}, "", `tool call 1 of choice 0, byte 0: the end`},
		"content behind a call":   {chunks{ofCall(0, "f"), content("a")}, chunks{ofCall(0, "f"), ofCall(0, "x")}, "", `tool call "x" here and content "a"`},
		"a call in place of text": {chunks{content("a")}, chunks{ofCall(0, "f")}, "", `tool "f" here and content "a"`},
		"a call that goes on": {
			chunks{ofCall(0, "f")}, chunks{ofCall(0, "f"), {Text: []byte("1"), Channel: engine.ToolCall}}, "0.0:1", "",
		},
		"ids": {
			chunks{withIDs("a", 1), withIDs("b", 2)}, chunks{withIDs("abc", 1, 2, 3), withIDs("d", 4)}, "0:c [3] 0:d [4]", "",
		},
		"ids before their text": {
			chunks{withIDs("a", 1), withIDs("", 2, 3)}, chunks{withIDs("a", 1), withIDs("", 2), withIDs("", 3), withIDs("😀", 4)}, "0:😀 [4]", "",
		},
		"ids that come with more text": {
			chunks{withIDs("a", 1)}, chunks{withIDs("a", 1, 2), withIDs("😀", 3)}, "0:😀 [2 3]", "",
		},
		"other ids of the same text": {
			chunks{withIDs("ab", 12)}, chunks{withIDs("a", 1), withIDs("bc", 2, 3), withIDs("d", 4)}, "0:c 0:d", "",
		},
		"ids of none but the new": {chunks{content("a")}, chunks{withIDs("a", 1), withIDs("b", 2)}, "0:b", ""},
		"the id of the end":       {chunks{withIDs("a", 1)}, chunks{withIDs("a", 1), withIDs("", 2)}, "0: [2]", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			new, c, err := compared(test.stream, test.answer)
			if test.differs != "" {
				if !errors.Is(err, engine.ErrDiverged) || !strings.Contains(err.Error(), test.differs) {
					t.Fatalf("%v, want %q", err, test.differs)
				}
				if len(new) > 0 {
					t.Errorf("before the divergence %s went out", said(new))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := said(new); got != strings.TrimSpace(test.new) {
				t.Errorf("new is %s, want %s", got, test.new)
			}
			if made, of := c.progress(); of != engine.Count(test.stream) || made > of {
				t.Errorf("progress %d of %d", made, of)
			}
		})
	}
}

// TestComparerIsStrict: a text that goes on by ids has to have the same ones.
func TestComparerIsStrict(t *testing.T) {
	c := &comparer{strict: true}
	if err := c.extend(chunks{withIDs("a", 1), withIDs("", 2)}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.take(deltaOf(withIDs("a", 1))), c.take(deltaOf(withIDs("", 3)))); !errors.Is(err, engine.ErrDiverged) || !strings.Contains(err.Error(), "tokens [3]") {
		t.Errorf("%v", err)
	}
	c = &comparer{strict: true}
	if err := errors.Join(c.extend(chunks{withIDs("a", 1)}), c.take(deltaOf(content("a")))); err != nil {
		t.Errorf("a server that tells no ids: %v", err)
	}
}

// TestComparerOfLogprobs: what is delivered has the entries of its tokens, wherever pieces have their borders.
func TestComparerOfLogprobs(t *testing.T) {
	entry := func(names ...string) json.RawMessage {
		list := []map[string]string{}
		for _, name := range names {
			list = append(list, map[string]string{"token": name})
		}
		raw, _ := json.Marshal(map[string]any{"content": list, "refusal": nil})
		return raw
	}
	withLogprobs := func(text string, tokens int, names ...string) engine.Chunk {
		data, _ := json.Marshal(wire.Detail{Logprobs: entry(names...)})
		return engine.Chunk{Text: []byte(text), Tokens: tokens, Data: data}
	}
	stream := chunks{withLogprobs("a", 1, "a"), withLogprobs("b", 1, "b")}
	new, _, err := compared(stream, chunks{withLogprobs("a", 1, "a"), withLogprobs("bcd", 3, "b", "c", "d"), withLogprobs("e", 1, "e")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range new {
		for _, list := range parse(p.Logprobs) {
			for _, e := range list {
				got = append(got, string(e))
			}
		}
	}
	want := []string{`{"token":"c"}`, `{"token":"d"}`, `{"token":"e"}`}
	if !slices.Equal(got, want) || said(new) != "0:cd 0:e" {
		t.Errorf("%s with %s, want %s", said(new), got, want)
	}
}

// answer is a random one, with everything that there is.
func randomAnswer(r *rand.Rand) (all chunks) {
	id := uint32(0)
	text := func() string {
		words := []string{"a", " fox", "😀", "é", "\n", "{", "", "lazy dogs"}
		var b strings.Builder
		for range 1 + r.IntN(4) {
			b.WriteString(words[r.IntN(len(words))])
		}
		return b.String()
	}
	for choice := range 1 + r.IntN(3) {
		for range r.IntN(3) {
			all = append(all, engine.Chunk{Text: []byte(text()), Choice: choice, Channel: engine.Reasoning})
		}
		for range 1 + r.IntN(5) {
			all = append(all, engine.Chunk{Text: []byte(text()), Choice: choice})
		}
		for index := range r.IntN(3) {
			for part := range 1 + r.IntN(4) {
				c := ofCall(index, text())
				if c.Choice = choice; part == 0 {
					c.Text = append(c.Text, "tool"...)
				}
				all = append(all, c)
			}
		}
	}
	for i := range all {
		id++
		all[i].TokenIDs = []uint32{id}
	}
	return all
}

// rechunked is the same answer with other borders. It never parts a character of a server's, nor the name of a tool.
func rechunked(r *rand.Rand, all chunks, characters bool) (other chunks) {
	named := map[[2]int]bool{}
	for _, c := range all {
		d := wire.ParseDetail(c.Data)
		key := [2]int{c.Choice, -1}
		if d != nil && d.Call != nil {
			key[1] = d.Call.Index
		}
		if c.Channel == engine.ToolCall && !named[key] {
			named[key] = true
			other = append(other, c)
			continue
		}
		for rest := c; ; {
			at := r.IntN(len(rest.Text) + 1)
			for characters && at < len(rest.Text) && at > 0 && rest.Text[at]&0xC0 == 0x80 {
				at--
			}
			if at == 0 || at == len(rest.Text) {
				other = append(other, rest)
				break
			}
			part := rest
			part.Text, part.TokenIDs, part.Tokens = rest.Text[:at], nil, engine.NoTokens
			other = append(other, part)
			rest.Text = rest.Text[at:]
		}
	}
	return other
}

// byChannel is the text of each channel of each choice, and which tokens there are.
func byChannel(all chunks) string {
	texts := map[string][]byte{}
	ids := map[int][]uint32{}
	begun := map[int]*calls{}
	for _, c := range all {
		if begun[c.Choice] == nil {
			begun[c.Choice] = &calls{}
		}
		d := deltaOf(c)
		key := begun[c.Choice].place(c.Channel, d.Call)
		name := fmt.Sprint(c.Choice, key)
		texts[name] = append(texts[name], c.Text...)
		ids[c.Choice] = append(ids[c.Choice], c.TokenIDs...)
	}
	for name, text := range texts {
		if len(text) == 0 {
			delete(texts, name)
		}
	}
	return fmt.Sprintf("%q %v", texts, ids)
}

// TestComparerProperty: however an answer comes in pieces, what a stream has of it and what is new are the answer; a changed byte
// diverges, exactly there.
func TestComparerProperty(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		all := randomAnswer(r)
		stream := rechunked(r, all, false)
		stream = stream[:r.IntN(len(stream)+1)]
		answer := rechunked(r, all, true)
		new, _, err := compared(stream, answer)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		together := slices.Clone(stream)
		for _, p := range new {
			c := engine.Chunk{Text: p.Text, Choice: p.Choice, Channel: p.channel, TokenIDs: p.IDs}
			if p.channel == engine.ToolCall {
				c.Data = fmt.Appendf(nil, `{"call":{"index":%d}}`, p.call)
			}
			together = append(together, c)
		}
		if got, want := byChannel(together), byChannel(all); got != want {
			t.Fatalf("seed %d: %s, want %s", seed, got, want)
		}
		differs(t, seed, r, stream, answer)
	}
}

// differs changes one byte of what the stream has, and wants the comparer to say which one.
func differs(t *testing.T, seed uint64, r *rand.Rand, stream, answer chunks) {
	t.Helper()
	i := -1
	for range 20 {
		if len(stream) > 0 {
			if at := r.IntN(len(stream)); len(stream[at].Text) > 0 {
				i = at
			}
		}
	}
	if i < 0 {
		return
	}
	changed := slices.Clone(stream)
	at := r.IntN(len(stream[i].Text))
	changed[i].Text = bytes.Clone(stream[i].Text)
	changed[i].Text[at] ^= 0x01
	want := divergence{choice: stream[i].Choice, channel: stream[i].Channel, at: at}
	var there calls
	key := spanKey{}
	before := map[spanKey]int{}
	for _, c := range stream[:i+1] {
		if c.Choice == want.choice {
			key = there.place(c.Channel, deltaOf(c).Call)
			before[key] += len(c.Text)
		}
	}
	want.call = key.call
	want.at += before[key] - len(stream[i].Text)
	if key.name {
		want.at = 0
	}
	_, _, err := compared(changed, answer)
	var got *divergence
	if !errors.As(err, &got) {
		t.Fatalf("seed %d: byte %d of chunk %d is another one, and the error is %v", seed, at, i, err)
	}
	if got.choice != want.choice || got.channel != want.channel || got.call != want.call || got.at != want.at {
		t.Fatalf("seed %d: byte %d of chunk %d is another one, and the error is %v", seed, at, i, err)
	}
}

// TestComparerIsExtended: the stream may get more while the answer is ahead of it.
func TestComparerIsExtended(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		all := randomAnswer(r)
		stream, answer := rechunked(r, all, false), rechunked(r, all, true)
		c := &comparer{}
		for len(stream) > 0 || len(answer) > 0 {
			if n := min(r.IntN(4), len(stream)); n > 0 {
				if err := c.extend(stream[:n]); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				stream = stream[n:]
			}
			if n := min(r.IntN(4), len(answer)); n > 0 {
				for _, chunk := range answer[:n] {
					if err := c.take(deltaOf(chunk)); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
				answer = answer[n:]
			}
		}
		if p, ok := c.next(); ok || c.ended() != nil {
			t.Fatalf("seed %d: the stream has the whole answer, and %+v is new, %v", seed, p, c.ended())
		}
	}
}
