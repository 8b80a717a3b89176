package cli_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
)

// TestPrompt: where it comes from, and what is no prompt.
func TestPrompt(t *testing.T) {
	for name, test := range map[string]struct {
		variable, piped string
		args            []string
		want            string // or what is said
		code            int
	}{
		"nothing":                {"", "", nil, "Once upon a time", 0},
		"a pipe":                 {"", "Ahoi\nthere\n", nil, "Ahoi\nthere\n", 0},
		"a pipe and a dash":      {"variable", "Ahoi", []string{"-"}, "Ahoi", 0},
		"a pipe and a variable":  {"variable", "Ahoi", nil, "variable", 0},
		"a pipe and an argument": {"", "Ahoi", []string{"argument"}, "argument", 0},
		"a dash and flags":       {"", "Ahoi", []string{"--seed", "3", "-"}, "Ahoi", 0},
		"an empty pipe":          {"", "\x00empty", nil, "there is no prompt on standard input; give one there, or as an argument", 1},
		"what is no text":        {"", "\xff", nil, "the prompt on standard input is not valid UTF-8", 1},
		"far too much":           {"", strings.Repeat("x", 16<<20+1), nil, "longer than 16777216 bytes", 1},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				t.Setenv("CONNECTION_SWAP_CLIENT_PROMPT", test.variable)
				if test.piped != "" {
					t.stdin = strings.NewReader(strings.TrimPrefix(test.piped, "\x00empty"))
				}
				var got string
				t.serve(func(s *fakedirector.Stream) {
					got = s.Request.GetPrompt()
					s.Send(s.Finish())
				})
				code, _, stderr := t.run(append([]string{"generate"}, test.args...)...)
				if code != test.code {
					t.Errorf("exit code %d: %s", code, stderr)
				}
				if test.code == 0 && got != test.want || test.code != 0 && !strings.Contains(stderr, test.want) {
					t.Errorf("the prompt is %.40q, said %q; want %q", got, stderr, test.want)
				}
			})
		})
	}
}

func TestInterruptWhileReadingThePrompt(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		reader, writer := io.Pipe()
		defer writer.Close() //nolint:errcheck // it only kept the reader waiting
		t.stdin = reader
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if code, _, stderr := t.runIn(ctx, "generate", "-"); code != 130 || stderr != "client: cancelled\n" {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
}

// TestPlainTerminal: who wants no escapes gets none, and the marks all the same.
func TestPlainTerminal(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.tty, t.plain = true, true
		t.serve(survivor)
		_, stdout, stderr := t.run("generate")
		if strings.Contains(stdout+stderr, "\x1b") || !strings.Contains(stdout, " ⟨worker-a → worker-b, +200 ms⟩ ") {
			t.Errorf("wrote %q, said %q", stdout, stderr)
		}
		t.operate(drained)
		if _, stdout, stderr = t.run("drain", "worker-a"); strings.Contains(stdout+stderr, "\x1b") {
			t.Errorf("wrote %q, said %q", stdout, stderr)
		}
	})
}
