package openai

import (
	"strconv"
	"unicode/utf8"
)

// events collects server-sent events (HTML, §9.2) for one write. They are numbered from 1 on; those that a client has already are
// left out.
//
// Clients are picky (see TestDecoders): no event without data, no comment that ends in an empty line, and no empty line behind an
// id that has no data.
type events struct {
	buf   []byte
	count uint64 // events so far
	skip  uint64 // of them the client has
	ids   bool   // each says its number

	from int // in buf, of the event that is being written
}

// begin begins an event, with a name if there is one. Its data follow, on one line.
func (e *events) begin(name string) {
	e.count++
	e.from = len(e.buf)
	if e.ids {
		e.buf = append(e.buf, "id: "...)
		e.buf = strconv.AppendUint(e.buf, e.count, 10)
		e.buf = append(e.buf, '\n')
	}
	if name != "" {
		e.buf = append(e.buf, "event: "...)
		e.buf = append(e.buf, name...)
		e.buf = append(e.buf, '\n')
	}
	e.buf = append(e.buf, "data: "...)
}

// end ends it.
func (e *events) end() {
	e.buf = append(e.buf, "\n\n"...)
	if e.count <= e.skip {
		e.buf = e.buf[:e.from]
	}
}

// raw adds to the data of the event that is being written.
func (e *events) raw(text string) { e.buf = append(e.buf, text...) }

// data adds what is JSON already.
func (e *events) data(text []byte) { e.buf = append(e.buf, text...) }

// integer adds a number.
func (e *events) integer(n int) { e.buf = strconv.AppendInt(e.buf, int64(n), 10) }

// text adds a string.
func (e *events) text(s []byte) { e.buf = appendString(e.buf, s) }

// ping is a sign of life: a comment that ends no event, and that no client takes for one.
const ping = ": ping\n"

// appendString appends valid UTF-8 as a JSON string.
func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

// printable reports whether a text from a client can stand in a header, or in a log.
func printable(s string, most int) bool {
	if len(s) > most || !utf8.ValidString(s) {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
