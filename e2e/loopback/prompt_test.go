package loopback

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPromptOnStandardInput: a pipe is the prompt, and what is written to one is the text alone.
func TestPromptOnStandardInput(t *testing.T) {
	c := up(t)
	generate := func(stdin string, args ...string) (stdout, stderr string, code int) {
		p := c.command(t, nil, append([]string{"generate", "--max-tokens", "3"}, args...)...)
		var out, notes bytes.Buffer
		p.Stdout, p.Stderr = &out, &notes
		if stdin != "" {
			p.Stdin = strings.NewReader(stdin)
		}
		p.run(t)
		p.wait()
		return out.String(), notes.String(), p.ProcessState.ExitCode()
	}
	want, _, code := generate("", "The river")
	if code != 0 || want == "" {
		t.Fatalf("exit code %d, %q", code, want)
	}
	other, _, _ := generate("") // the default one
	for name, args := range map[string][]string{"a pipe": nil, "a dash": {"-"}} {
		if got, notes, code := generate("The river", args...); code != 0 || got != want {
			t.Errorf("%s: exit code %d, %q, want %q: %s", name, code, got, want, notes)
		}
	}
	if other == want {
		t.Error("the prompt makes no difference")
	}
	c.director.terminate(t)
	for _, w := range c.workers {
		w.terminate(t)
	}
}

// TestReaderIsGone: as behind head, every command ends quietly, with one code.
func TestReaderIsGone(t *testing.T) {
	c := up(t)
	for _, args := range [][]string{{"generate", "x"}, {"generate", "x", "--output", "json"}, {"status"}, {"--help"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		p := c.command(t, nil, args...)
		var notes bytes.Buffer
		p.Stdout, p.Stderr = w, &notes
		p.run(t)
		_ = w.Close()
		p.wait()
		if code := p.ProcessState.ExitCode(); code != 130 || notes.Len() > 0 {
			t.Errorf("%s: exit code %d: %s", args, code, notes.String())
		}
	}
	c.director.terminate(t)
	for _, w := range c.workers {
		w.terminate(t)
	}
}

// TestReaderOfARoleIsGone: what director and worker print for people ends in the same way.
func TestReaderOfARoleIsGone(t *testing.T) {
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"director", "--help"}, {"worker", "--version"}, {"director", "completion", "bash"}, {"director", "certs", t.TempDir()}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		var notes bytes.Buffer
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, args[0]), args[1:]...)
		cmd.Stdout, cmd.Stderr = w, &notes
		_ = cmd.Run() // its code is what is asked for
		_ = w.Close()
		if code := cmd.ProcessState.ExitCode(); code != 130 || notes.Len() > 0 {
			t.Errorf("%s: exit code %d: %s", args, code, notes.String())
		}
	}
}
