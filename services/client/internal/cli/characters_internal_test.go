package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/connswap/connswap/services/client/connswap"
)

// Cut anywhere, a text stays what it is, comes in whole characters, and can be put together again from the lines for programs.
func FuzzCharacters(f *testing.F) {
	f.Add("", []byte{})
	f.Add("aé€😀", []byte{1})
	f.Add("a\xff\xe2\x82\x80€\xe2\x82", []byte{1, 2, 0, 3})
	f.Add("\xf0\x9f\x98", []byte{2, 1})
	f.Fuzz(func(t *testing.T, text string, lengths []byte) {
		var c characters
		var lines bytes.Buffer
		out := newJSONOutput(&sink{w: &lines})
		var together strings.Builder
		for piece := range pieces(text, lengths) {
			got := c.add(piece)
			if utf8.ValidString(text) && !utf8.ValidString(got) {
				t.Fatalf("%q has a part of a character", got)
			}
			if len(c.rest) >= utf8.UTFMax || c.rest != "" && utf8.FullRuneInString(c.rest) {
				t.Fatalf("%q waits", c.rest)
			}
			together.WriteString(got)
			out.event(&report{}, connswap.Token{Text: piece})
		}
		together.WriteString(c.end())
		out.event(&report{}, connswap.Done{})
		if together.String() != text || c.end() != "" {
			t.Fatalf("%q became %q", text, together.String())
		}
		if got := putTogether(t, &lines); got != text {
			t.Fatalf("%q became %q in JSON", text, got)
		}
	})
}

// pieces cuts a text into parts of these lengths, again and again, and empty ones before them.
func pieces(text string, lengths []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for n := 0; len(text) > 0; n++ {
			length := 1
			if len(lengths) > 0 {
				length = int(lengths[n%len(lengths)])
			}
			if n > len(lengths) {
				length = max(length, 1)
			}
			length = min(length, len(text))
			if !yield(text[:length]) {
				return
			}
			text = text[length:]
		}
	}
}

// putTogether does what a program does: of each line the bytes if there are any, else the text.
func putTogether(t *testing.T, lines *bytes.Buffer) string {
	t.Helper()
	var text strings.Builder
	for d := json.NewDecoder(lines); d.More(); {
		var line struct {
			Text  string
			Bytes []byte
		}
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line.Bytes != nil {
			line.Text = string(line.Bytes)
		}
		text.WriteString(line.Text)
	}
	return text.String()
}
