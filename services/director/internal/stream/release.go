package stream

import (
	"bytes"
	"unicode/utf8"

	"github.com/connswap/connswap/shared/wire"
)

// Release says which text that is in the log must not be shown yet.
type Release struct {
	Stop       []string // the text of the only choice ends before the first of these
	Characters bool     // only whole characters are shown
	Calls      bool     // a tool call is shown once its JSON is whole
}

// release is where readers have to stop: before the first chunk that may have to be changed, or whose text may not be shown
// alone. What is behind it is in the log, and counts. The log's lock guards it.
type release struct {
	Release
	longest int // bytes of a stop string
	at      snapshot
	held    []heldChunk // in the log, from at on
	texts   map[place]*heldText
}

// place says which text of a stream is meant.
type place struct {
	choice  uint32
	channel wire.Channel
}

// snapshot is a journal as it was once: it can be taken back to that.
type snapshot struct {
	position
	tokens, records, weight uint64
	bytes                   int
}

// heldChunk is a chunk that may not be shown yet.
type heldChunk struct {
	before     snapshot
	place      place
	start, end uint64 // of its text, in the text of its place
	chunk      wire.Chunk
}

// heldText is what has to be known of one text: its end, and from where on it may not be shown.
type heldText struct {
	end, from uint64
	tail      []byte // the last bytes before end, as many as a stop string, or a character, may begin with
	call      call
}

// newRelease returns nil where all that is in the log may be shown.
func newRelease(r Release) *release {
	longest := 0
	for _, stop := range r.Stop {
		longest = max(longest, len(stop))
	}
	if longest == 0 && !r.Characters && !r.Calls {
		return nil
	}
	return &release{Release: r, longest: longest, texts: map[place]*heldText{}}
}

// add takes note of a chunk that was appended to a journal, which was as before says, and moves the release point. If the
// chunk completes a stop string it takes the journal back to the end of the text before that, and reports true.
func (r *release) add(j *journal, before snapshot, c wire.Chunk) (stopped bool) {
	at := place{}
	at.choice, at.channel = c.Where()
	t := r.texts[at]
	if t == nil {
		t = &heldText{}
		r.texts[at] = t
	}
	c.Text = bytes.Clone(c.Text)
	held := heldChunk{before: before, place: at, start: t.end, end: t.end + uint64(len(c.Text)), chunk: c}
	r.held = append(r.held, held)
	start := t.end - uint64(len(t.tail))
	text := append(t.tail, c.Text...)
	t.end = held.end
	if at.channel == wire.Content {
		if offset, ok := r.stopIn(text); ok {
			r.cut(j, at, start+uint64(offset))
			return true
		}
	}
	from := t.end - uint64(r.holds(text, at.channel))
	if r.Calls && at.channel == wire.ToolCall {
		from = min(from, t.whole(c.Text))
	}
	t.from = from
	t.tail = append(t.tail[:0:0], text[len(text)-min(len(text), max(r.longest-1, utf8.UTFMax-1)):]...)
	r.move(j)
	return false
}

// stopIn returns where the first stop string begins in a text.
func (r *release) stopIn(text []byte) (offset int, ok bool) {
	offset = len(text)
	for _, stop := range r.Stop {
		if i := bytes.Index(text, []byte(stop)); i >= 0 && stop != "" && i <= offset {
			offset, ok = i, true
		}
	}
	return offset, ok
}

// holds returns how many bytes at the end of a text may not be shown yet.
func (r *release) holds(text []byte, channel wire.Channel) (n int) {
	if channel == wire.Content {
		for _, stop := range r.Stop {
			for size := min(len(stop)-1, len(text)); size > n; size-- {
				if bytes.HasSuffix(text, []byte(stop[:size])) {
					n = size
				}
			}
		}
	}
	if r.Characters {
		n = max(n, incomplete(text))
	}
	return n
}

// whole takes the next bytes of tool calls, behind which the text ends, and returns up to where they may be shown: to the end
// of the last chunk behind which there was no call under way.
func (t *heldText) whole(more []byte) uint64 {
	within := t.call.depth > 0
	t.call.read(more)
	switch {
	case t.call.depth == 0:
		return t.end
	case within:
		return t.from
	default:
		return t.end - t.call.bytes
	}
}

// call follows the JSON of tool calls: objects and arrays, one after the other.
type call struct {
	depth           int
	bytes           uint64 // since the outermost one has begun
	quoted, escaped bool
}

// read goes through the next bytes.
func (c *call) read(text []byte) {
	for _, b := range text {
		if c.depth > 0 {
			c.bytes++
		}
		switch {
		case c.escaped:
			c.escaped = false
		case c.quoted:
			c.escaped, c.quoted = b == '\\', b != '"'
		case c.depth > 0 && b == '"':
			c.quoted = true
		case b == '{' || b == '[':
			if c.depth++; c.depth == 1 {
				c.bytes = 1
			}
		case c.depth > 0 && (b == '}' || b == ']'):
			c.depth--
		}
	}
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

// move moves the release point behind all that may be shown.
func (r *release) move(j *journal) {
	n := 0
	for n < len(r.held) && r.held[n].end <= r.texts[r.held[n].place].from {
		n++
	}
	r.held = r.held[n:]
	if len(r.held) == 0 {
		r.at, r.held = j.snapshot(), nil
	} else {
		r.at = r.held[0].before
	}
}

// cut takes the journal back to the end of a text at an offset, and shows all that is left of it.
func (r *release) cut(j *journal, at place, offset uint64) {
	for _, h := range r.held {
		if h.place != at || h.end <= offset {
			continue
		}
		j.restore(h.before)
		if c := h.chunk; offset > h.start {
			c.Text = c.Text[:offset-h.start]
			_ = j.append(&c) // it is shorter than the one that was there
		}
		break
	}
	r.end(j)
}

// end shows all that is in the log, and all that comes.
func (r *release) end(j *journal) {
	r.held, r.at = nil, j.snapshot()
	r.Stop, r.Characters, r.Calls = nil, false, false
}
