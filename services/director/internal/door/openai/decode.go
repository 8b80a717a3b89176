package openai

import (
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// delta is what a chunk adds to one text of a stream.
type delta struct {
	choice  int
	channel wire.Channel
	text    []byte // whole characters, perhaps none
	call    *call  // that the text belongs to, on the channel wire.ToolCall
	begins  bool   // the call; the text is its tool's name
	logp    []byte // logprobs, as JSON; nil for none
}

// call is one tool call of a choice.
type call struct {
	index int
	kind  string // wire.CallFunction or wire.CallCustom
}

// encoder writes a stream as its client wants it.
type encoder interface {
	// delta takes the next piece of text.
	delta(d *delta)
	// finish takes the end of a stream that is complete.
	finish(done *wirepb.Done)
	// fail takes the end of one that is not.
	fail(err *wire.Error)
}

// decoder turns the frames of a log into what encoders take. It holds back the beginning of a character until the rest of it is
// there, since JSON has whole ones only.
type decoder struct {
	to     encoder
	notice func(m wire.Message)  // what is told beside chunks; optional
	failed func(err *wire.Error) // the stream has failed, before the encoder is told; optional

	tokens  uint64             // that the chunks stand for
	halves  map[int]half       // by choice
	calls   map[int]*callState // by choice
	scratch delta
	over    bool // the last frame was read
}

// half is the beginning of a character, at the end of what there is of a choice.
type half struct {
	channel wire.Channel
	call    *call
	text    []byte
}

// callState is which tool calls a choice has.
type callState struct {
	now   *call
	begun map[int]*call
}

// read decodes frames, and reports whether the last one was among them.
func (d *decoder) read(frames []byte) (over bool) {
	for len(frames) > 0 {
		f, size := wire.ParseFrame(frames)
		frames = frames[size:]
		if f.IsChunk() {
			chunk, _ := wire.ParseChunk(f) // the log wrote it
			d.chunk(&chunk)
			continue
		}
		m, _ := wire.Decode(f) // and this
		if d.notice != nil {
			d.notice(m)
		}
		switch m := m.(type) {
		case *wirepb.Done:
			d.flush()
			d.to.finish(m)
			d.over = true
		case *wire.ErrorMessage:
			err := wire.FromMessage(m)
			if d.failed != nil {
				d.failed(err)
			}
			d.to.fail(err)
			d.over = true
		}
	}
	return d.over
}

// chunk decodes one chunk.
func (d *decoder) chunk(c *wire.Chunk) {
	d.tokens += uint64(c.Tokens())
	s := &d.scratch
	*s = delta{text: c.Text}
	if r := c.Rich; r != nil {
		s.choice, s.channel = int(r.Choice), r.Channel
		d.detail(s, wire.ParseDetail(r.Data))
	}
	if len(d.halves) > 0 || !utf8.Valid(s.text) {
		s.text = d.whole(s)
	}
	if len(s.text) > 0 || s.begins || s.logp != nil {
		d.to.delta(s)
	}
}

// detail adds what else a chunk says.
func (d *decoder) detail(s *delta, said *wire.Detail) {
	if said != nil {
		s.logp = said.Logprobs
	}
	if s.channel != wire.ToolCall {
		return
	}
	state := d.calls[s.choice]
	if state == nil {
		state = &callState{begun: map[int]*call{}}
		if d.calls == nil {
			d.calls = map[int]*callState{}
		}
		d.calls[s.choice] = state
	}
	index, kind := 0, wire.CallFunction
	switch {
	case said != nil && said.Call != nil:
		index = said.Call.Index
		if said.Call.Type == wire.CallCustom {
			kind = wire.CallCustom
		}
	case state.now != nil:
		index = state.now.index
	}
	if state.now = state.begun[index]; state.now == nil {
		state.now = &call{index: len(state.begun), kind: kind}
		state.begun[index] = state.now
		s.begins = true
	}
	s.call = state.now
}

// whole returns the whole characters of a delta's text, after what there was of the first one, and keeps the beginning of the last
// one for later. What is no UTF-8 becomes U+FFFD.
func (d *decoder) whole(s *delta) []byte {
	before, ok := d.halves[s.choice]
	if ok && (before.channel != s.channel || s.begins) {
		d.broken(s.choice)
		before = half{}
	}
	delete(d.halves, s.choice)
	text := append(before.text, s.text...)
	size := len(text) - incomplete(text)
	if size < len(text) {
		if d.halves == nil {
			d.halves = map[int]half{}
		}
		d.halves[s.choice] = half{s.channel, s.call, append([]byte(nil), text[size:]...)}
	}
	return valid(text[:size])
}

// broken puts out the beginning of a character that nothing follows any more.
func (d *decoder) broken(choice int) {
	h := d.halves[choice]
	d.to.delta(&delta{choice: choice, channel: h.channel, call: h.call, text: []byte(string(utf8.RuneError))})
}

// flush does so for all choices.
func (d *decoder) flush() {
	for _, choice := range slices.Sorted(maps.Keys(d.halves)) {
		d.broken(choice)
	}
	d.halves = nil
}

// valid returns a text with U+FFFD for what is no UTF-8.
func valid(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	return []byte(string([]rune(string(text))))
}

// incomplete returns how many bytes at the end of a text are the beginning of a character.
func incomplete(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n]; utf8.RuneStart(b) {
			if utf8.FullRune(text[len(text)-n:]) {
				return 0
			}
			return n
		}
	}
	return 0
}
