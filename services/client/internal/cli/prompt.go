package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxPrompt is how much is read of a prompt, in bytes: more than a director takes by default, or is likely to.
const maxPrompt = 16 << 20

// prompt returns the prompt: the argument, else the variable's, else what comes through a pipe, else the default one. The
// argument - stands for standard input.
func (p Process) prompt(ctx context.Context, variable string, args []string) (string, error) {
	switch {
	case len(args) == 1 && args[0] != "-":
		return args[0], nil
	case len(args) == 0 && variable != "":
		return variable, nil
	case len(args) == 0 && !p.Piped:
		return defaultPrompt, nil
	}
	type read struct {
		text []byte
		err  error
	}
	done := make(chan read, 1) // whoever is interrupted does not wait for the reader
	go func() {
		text, err := io.ReadAll(io.LimitReader(p.Stdin, maxPrompt+1))
		done <- read{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case r := <-done:
		switch {
		case r.err != nil:
			return "", fmt.Errorf("reading the prompt from standard input: %w", r.err)
		case len(r.text) > maxPrompt:
			return "", fmt.Errorf("the prompt on standard input is longer than %d bytes", maxPrompt)
		case !utf8.Valid(r.text):
			return "", errors.New("the prompt on standard input is not valid UTF-8")
		case len(r.text) == 0:
			return "", errors.New("there is no prompt on standard input; give one there, or as an argument")
		}
		return string(r.text), nil
	}
}
