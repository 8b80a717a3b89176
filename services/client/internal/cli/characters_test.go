package cli_test

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
)

// bytewise is an engine with one byte in each token, whose worker dies within a character.
func bytewise(text string, cut int) func(*fakedirector.Stream) {
	return func(s *fakedirector.Stream) {
		s.Assign()
		for i := range len(text) {
			if i == cut {
				s.Swap()
			}
			s.Say(1+uint64(min(1, max(0, i-cut+1))), text[i:i+1])
		}
		s.Send(s.Finish())
	}
}

// pause is how long a swap took, if it took any time: two packets do not arrive at one instant.
var pause = regexp.MustCompile(`, \+[0-9.]+ ms⟩`)

// However a text is cut into tokens, and whatever bytes it has, what the client writes can be put together to the very same
// text, and a swap is marked between two characters.
func TestCharactersInPieces(t *testing.T) {
	const (
		whole  = "né 3 €, 😀!"
		broken = "né\xff\xc3( 3 €\xe2\x82"
	)
	write := func(t *terminal, text string, args ...string) string {
		t.serve(bytewise(text, strings.Index(text, "€")+1))
		code, stdout, stderr := t.run(append([]string{"generate"}, args...)...)
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		return stdout
	}
	for name, test := range map[string]struct {
		text string
		tty  bool
		want string
	}{
		"text":               {whole, false, "né 3 €, 😀!\n"},
		"terminal":           {whole, true, "né 3 \x1b[2m ⟨worker-a → worker-b⟩\x1b[22m€, 😀!\n"},
		"text, not UTF-8":    {broken, false, "né\xff\xc3( 3 €\xe2\x82\n"},
		"terminal and bytes": {broken, true, "né\ufffd\ufffd( 3 \x1b[2m ⟨worker-a → worker-b⟩\x1b[22m€\ufffd\ufffd\n"},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				t.tty = test.tty
				got := pause.ReplaceAllString(write(t, test.text), "⟩")
				if got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			})
		})
	}
	for name, test := range map[string]struct {
		format string // of the log
		args   []string
	}{
		"json": {"console", []string{"--output", "json"}}, "log": {"json", []string{"--output", "log"}},
		"console": {"console", []string{"--output", "log"}},
	} {
		for _, text := range []string{whole, broken} {
			t.Run(name, func(t *testing.T) {
				atTerminal(t, func(t *terminal) {
					t.Setenv("CONNECTION_SWAP_LOG_FORMAT", test.format)
					stdout := write(t, text, test.args...)
					var got strings.Builder
					for line := range strings.Lines(stdout) {
						got.WriteString(textOf(t, line))
						if text == whole && (strings.Contains(line, "\ufffd") || strings.Contains(line, `\ufffd`)) {
							t.Errorf("a character is lost: %s", line)
						}
					}
					if got.String() != text {
						t.Errorf("%q can be put together, want %q, from\n%s", got.String(), text, stdout)
					}
				})
			})
		}
	}
}

// textOf is the piece of text of a line.
func textOf(t *terminal, line string) string {
	var piece struct {
		Text  string
		Bytes []byte
	}
	if strings.HasPrefix(line, "{") {
		if err := json.Unmarshal([]byte(line), &piece); err != nil {
			t.Fatal(err)
		}
		if piece.Bytes != nil {
			return string(piece.Bytes)
		}
		return piece.Text
	}
	_, quoted, ok := strings.Cut(line, "text=")
	if !ok {
		return ""
	}
	if strings.HasPrefix(quoted, `"\"`) { // a field, which is quoted itself
		outer, err := strconv.QuotedPrefix(quoted)
		if err != nil {
			t.Fatal(err)
		}
		quoted, _ = strconv.Unquote(outer)
	}
	quoted, err := strconv.QuotedPrefix(quoted)
	if err != nil {
		t.Fatal(err)
	}
	text, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
