package sim

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/migration"
)

var update = flag.Bool("update", false, "write the golden transcripts anew")

// TestTranscripts plays the sessions in testdata: each file is a script, a line of dashes, and what came of it,
// as the client saw it and as the director recorded it.
//
//	mode M           simulated failure that "fail" means: error, hang, drop or slow
//	tokens N         what the client asks for
//	at N: what who   after token N; what is kill, crash, freeze, thaw, fail, stop, restart, cancel, or move (the stream
//	                 away from it); who is a worker, "serving" or "all"
//	after D: …       the same, that long after the last "at"
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, _, _ := strings.Cut(string(want), "---\n")
			got := text + "---\n" + parseScript(t, text).play(t)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s differs; got:\n%s\nIf that is right: go test ./e2e/sim -run TestTranscripts -args -update", file, got)
			}
		})
	}
}

type script struct {
	mode   string
	tokens int
	steps  []step
}

type step struct {
	at        uint64        // token
	after     time.Duration // later than that
	what, who string
}

func parseScript(t *testing.T, text string) script {
	s := script{mode: "none"}
	var at uint64
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		head, rest, _ := strings.Cut(line, ":")
		var st step
		var delay string
		switch {
		case line == "":
			continue
		case scan(line, "mode %s", &s.mode), scan(line, "tokens %d", &s.tokens):
			continue
		case scan(head, "at %d", &at):
		case scan(head, "after %s", &delay):
			d, err := time.ParseDuration(delay)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			st.after = d
		default:
			t.Fatalf("not understood: %q", line)
		}
		st.at = at
		st.what, st.who, _ = strings.Cut(strings.TrimSpace(rest), " ")
		s.steps = append(s.steps, st)
	}
	return s
}

func scan(line, format string, into ...any) bool {
	n, err := fmt.Sscanf(line, format, into...)
	return err == nil && n == len(into)
}

// play runs the script and returns what came of it.
func (sc script) play(t *testing.T) string {
	var out strings.Builder
	su := setup{worker: func(cfg *config.Worker) { cfg.FailureMode = sc.mode }}
	stage(t, su, func(t *testing.T, s *scenario) {
		stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: uint32(sc.tokens), Seed: 7})
		if err != nil {
			t.Fatal(err)
		}
		w := transcriber{out: &out}
		var text strings.Builder
		for event, err := range stream.Events() {
			w.event(event, err)
			if token, ok := event.(connswap.Token); ok && err == nil {
				text.WriteString(token.Text)
				s.perform(sc, token, stream)
			}
		}
		w.flush()
		if whole := counted(sc.tokens); !strings.HasPrefix(whole, text.String()) {
			t.Errorf("text %q is not how that without faults begins", text.String())
		}
		s.describeSwaps(&out)
	})
	return out.String()
}

// perform does what the script says for after this token.
func (s *scenario) perform(sc script, token connswap.Token, stream *connswap.Stream) {
	for _, st := range sc.steps {
		if st.at != token.Sequence {
			continue
		}
		do := func() {
			if st.what == "cancel" {
				stream.Close()
				return
			}
			for _, p := range s.workers {
				if st.who == "all" || st.who == p.cfg.Label || st.who == "serving" && p.cfg.Label == token.Worker {
					s.strike(p, st.what)
				}
			}
		}
		if st.after == 0 {
			do()
			continue
		}
		s.wg.Go(func() { s.sleep(st.after); do() })
	}
}

func (s *scenario) strike(p *process, what string) {
	switch what {
	case "kill":
		p.die(p.host.Kill)
	case "crash":
		p.die(p.host.Crash)
	case "freeze":
		p.host.Freeze()
	case "thaw":
		p.host.Thaw()
	case "fail":
		p.failNow()
	case "restart":
		p.restart()
	case "stop":
		s.wg.Go(p.stop)
	case "move":
		s.wg.Go(func() {
			if _, err := s.operate().Swap(s.ctx, s.conn.ID(), 0, ""); err != nil {
				s.trace("the operator is told: %v", err)
			}
		})
	default:
		s.t.Errorf("unknown action %q", what)
	}
}

// transcriber writes events down; tokens in a row of the same worker become one line.
type transcriber struct {
	out         *strings.Builder
	first, last connswap.Token
}

func (w *transcriber) event(event connswap.Event, err error) {
	if token, ok := event.(connswap.Token); ok && err == nil {
		if w.last.Sequence+1 != token.Sequence || w.last.Epoch != token.Epoch || w.first.Sequence == 0 {
			w.flush()
			w.first = token
		}
		w.last = token
		return
	}
	w.flush()
	var typed *connswap.Error
	switch e := event.(type) {
	case connswap.Assigned:
		fmt.Fprintf(w.out, "assigned to %s, epoch %d\n", e.Worker, e.Epoch)
	case connswap.Waiting:
		fmt.Fprintf(w.out, "waiting, for %v at most: %s\n", e.Timeout, e.Reason)
	case connswap.Swapped:
		fmt.Fprintf(w.out, "swapped %s → %s after token %d, epoch %d, %s: %s\n", e.From, e.To, e.Sequence, e.Epoch, e.Kind, e.Cause)
	case connswap.Done:
		fmt.Fprintf(w.out, "done: %s, %d tokens, %d swaps\n", e.FinishReason, e.Tokens, e.Swaps)
	}
	switch {
	case errors.Is(err, connswap.ErrClosed):
		fmt.Fprintln(w.out, "cancelled")
	case errors.As(err, &typed):
		fmt.Fprintf(w.out, "error %s: %s\n", typed.Code, typed.Message)
	case err != nil:
		fmt.Fprintf(w.out, "error: %v\n", err)
	}
}

func (w *transcriber) flush() {
	if w.first.Sequence != 0 {
		fmt.Fprintf(w.out, "tokens %d to %d of %s, epoch %d\n", w.first.Sequence, w.last.Sequence, w.first.Worker, w.first.Epoch)
	}
	w.first = connswap.Token{}
}

// describeSwaps writes down what the director recorded. States that took no time are left out.
func (s *scenario) describeSwaps(out *strings.Builder) {
	time.Sleep(time.Second) // in the bubble: until the director is done with the stream
	var status struct{ Swaps []migration.Record }
	if err := s.status("/v1/swaps", &status); err != nil {
		s.t.Fatal(err)
	}
	for _, r := range status.Swaps {
		fmt.Fprintf(out, "director: %s %s → %s, epoch %d, cut %d: %s%s\n", r.Kind, r.From, r.To, r.Epoch, r.Cut, r.State, dash(r.Reason))
		for state := migration.Idle; state <= migration.Failed; state++ {
			if ms := r.StateMS[state.String()]; ms >= 1 {
				fmt.Fprintf(out, "  %-18s %4.0f ms\n", state, ms)
			}
		}
	}
}

func dash(reason string) string {
	if reason == "" {
		return ""
	}
	return " — " + reason
}
