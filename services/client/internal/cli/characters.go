package cli

import (
	"unicode/utf8"
)

// characters puts characters together that come in pieces: an engine's token may end within one. What is incomplete, three
// bytes at most, waits for its rest, so that what it returns can be shown, quoted, or marked behind. Bytes that are no part of
// a character in UTF-8, whatever follows, wait for nothing.
//
// All that it returns, one after the other, is what was added.
type characters struct{ rest string }

// add returns what is complete with the next piece of a text.
func (c *characters) add(piece string) string {
	text := c.rest + piece
	end := len(text) - incomplete(text)
	c.rest = text[end:]
	return text[:end]
}

// end returns what will never be complete, since the text has ended.
func (c *characters) end() string {
	rest := c.rest
	c.rest = ""
	return rest
}

// incomplete is how many bytes at the end of a text begin a character that needs more of them.
func incomplete(text string) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		last := text[len(text)-n:]
		if utf8.RuneStart(last[0]) {
			if utf8.FullRuneInString(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// outside returns the bytes of a text that is not valid in UTF-8, for a field beside the one with the text: JSON has
// characters only, and what is none becomes U+FFFD. It returns nil for all other texts.
func outside(text string) []byte {
	if utf8.ValidString(text) {
		return nil
	}
	return []byte(text)
}
