package migration_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/migration"
)

var update = flag.Bool("update", false, "write the golden transcripts anew")

// TestTranscripts feeds each swap in testdata/transcripts.txt its events and compares what comes out. A swap
// begins with its kind; each line below is an event, and after the arrow the new state and the actions.
func TestTranscripts(t *testing.T) {
	const file = "testdata/transcripts.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := replay(t, string(want))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got != string(want) && !*update {
		t.Errorf("%s differs; got:\n%s\nIf that is right: go test ./shared/migration -update", file, got)
	}
}

func replay(t *testing.T, transcript string) string {
	var out strings.Builder
	kind, state := migration.Placement, migration.Idle
	for line := range strings.Lines(transcript) {
		line = strings.TrimSuffix(line, "\n")
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case line == "" || line[0] == '#':
			fmt.Fprintln(&out, line)
		case line[0] != ' ':
			kind, state = kindOf(t, word), migration.Idle
			fmt.Fprintln(&out, line)
		default:
			next, actions, err := migration.Step(kind, state, eventOf(t, word))
			if err != nil {
				fmt.Fprintf(&out, "  %-11s → %v\n", word, err)
				continue
			}
			state = next
			fmt.Fprintf(&out, "  %-11s → %s%s\n", word, state, list(actions))
		}
	}
	return out.String()
}

func list(actions []migration.Action) string {
	var names strings.Builder
	for _, a := range actions {
		names.WriteString(", " + a.String())
	}
	return names.String()
}

func kindOf(t *testing.T, name string) migration.Kind {
	for k := migration.Placement; k <= migration.Planned; k++ {
		if k.String() == name {
			return k
		}
	}
	t.Fatalf("unknown kind %q", name)
	return 0
}

func eventOf(t *testing.T, name string) migration.Event {
	for e := migration.Start; e <= migration.Vetoed; e++ {
		if e.String() == name {
			return e
		}
	}
	t.Fatalf("unknown event %q", name)
	return 0
}

// TestEveryStep walks all states, kinds and events.
func TestEveryStep(t *testing.T) {
	for kind := migration.Placement; kind <= migration.Planned; kind++ {
		for state := migration.Idle; state <= migration.Failed; state++ {
			legal := 0
			for event := migration.Start; event <= migration.Vetoed; event++ {
				to, actions, err := migration.Step(kind, state, event)
				if err != nil {
					if !errors.Is(err, migration.ErrIllegal) || to != state || actions != nil {
						t.Errorf("%s %s %s: refused with %v, but changed to %s %v", kind, state, event, err, to, actions)
					}
					continue
				}
				legal++
				if to <= state {
					t.Errorf("%s: %s leads from %s back to %s", kind, event, state, to)
				}
			}
			if state.Final() != (legal == 0) {
				t.Errorf("%s %s: %d events are legal", kind, state, legal)
			}
			_, _, err := migration.Step(kind, state, migration.Cancelled)
			if cancellable := state != migration.Idle && !state.Final(); cancellable != (err == nil) {
				t.Errorf("%s %s: cancelling gives %v", kind, state, err)
			}
		}
	}
}

func TestSwapAccountsForItsTime(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := migration.NewSwap(migration.Failover, "worker-a", "died", start)
	now := start
	for i, event := range []migration.Event{
		migration.Start, migration.Granted, migration.Opened, migration.Captured, migration.Accepted,
		migration.Pivoted, migration.Verified, migration.Told,
	} {
		now = now.Add(time.Duration(i+1) * time.Millisecond)
		if _, err := s.Apply(event, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Apply(migration.Cancelled, now); !errors.Is(err, migration.ErrIllegal) {
		t.Fatalf("a swap that is over took another event: %v", err)
	}
	r := s.Record(now.Add(time.Hour))
	if r.State != "Completed" || r.TotalMS != 36 || r.StateMS["TransferringState"] != 5 || r.StateMS["Completing"] != 8 {
		t.Fatalf("record: %+v", r)
	}
}
