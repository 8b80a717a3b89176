package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
)

func (p Process) statusCommand() *cobra.Command {
	return p.asking(&status{}, &cobra.Command{
		Use: "status", Short: "shows a director's workers, streams and swaps",
		Long: "With --output json it is the director's own document, with all that it has.",
	})
}

type status struct{ noArguments }

func (*status) register(*pflag.FlagSet) {}
func (*status) check() problems         { return nil }

func (*status) run(ctx context.Context, client *operator.Client, _ func(update)) (result, error) {
	found, err := client.Status(ctx)
	if err != nil {
		return &outcome{}, err
	}
	return &statusResult{found: found}, nil
}

type statusResult struct {
	outcome
	found operator.Status
}

// MarshalJSON is the document, marked as the last line.
func (r *statusResult) MarshalJSON() ([]byte, error) {
	event, err := json.Marshal(r.Event)
	if err != nil {
		return nil, err
	}
	fields := bytes.TrimPrefix(bytes.TrimSpace(r.found.Raw), []byte("{"))
	return fmt.Appendf(nil, `{"event":%s,%s`, event, fields), nil
}

func (r *statusResult) text(w io.Writer) {
	s := r.found.Sessions
	fmt.Fprintf(w, "%s: %s, streams: %d streaming, %d moving, %d waiting, %d done, %d failed, %d cancelled\n",
		clean(r.found.Director), counted(uint64(len(r.found.Workers)), "worker"),
		s.Streaming, s.Moving, s.Waiting, s.Done, s.Failed, s.Cancelled)
	if note, err := r.found.Certificate.Check(r.found.Time); err != nil {
		fmt.Fprintln(w, err)
	} else if note != "" {
		fmt.Fprintln(w, note+"; renew the files in its CONNECTION_SWAP_TLS_DIR")
	}
	for _, file := range []*operator.File{r.found.ConfigFile, r.found.KeysFile} {
		if file != nil && file.Error != "" {
			fmt.Fprintf(w, "a file cannot be used, what was read at %s counts: %s\n", file.Loaded.UTC().Format(time.RFC3339), clean(file.Error))
		}
	}
	r.idle(w)
	for _, table := range [][][]any{r.workers(), r.streams(), r.swaps()} {
		if len(table) > 1 {
			fmt.Fprintln(w)
			writeTable(w, table)
		}
	}
}

func (r *statusResult) workers() [][]any {
	rows := [][]any{{"WORKER", "STATE", "STREAMS", "CAPACITY", "MODELS", "VERSION", "BUILD", "ADDRESS"}}
	beside := slices.ContainsFunc(r.found.Workers, func(w operator.Worker) bool { return w.Server != "" })
	if beside {
		rows[0] = append(rows[0], "SERVER")
	}
	for _, w := range r.found.Workers {
		row := []any{w.Worker, workerState(w), w.Sessions, w.Capacity, names(w.Models), w.Version, w.Build, w.UserAddr}
		if beside {
			row = append(row, w.Server)
		}
		rows = append(rows, row)
	}
	return rows
}

// idle says why workers take no streams, a line for each that does not and says why.
func (r *statusResult) idle(to io.Writer) {
	for _, w := range r.found.Workers {
		if reason := cmp.Or(w.Cut, w.Reason); reason != "" {
			fmt.Fprintf(to, "%s is %s: %s\n", clean(w.Worker), workerState(w), clean(reason))
		}
	}
}

// names lists models by name, with what was measured of each.
func names(models []operator.Model) string {
	all := make([]string, len(models))
	for i, m := range models {
		if all[i] = m.Name; m.Class != "" {
			all[i] += " (" + m.Class + ")"
		}
	}
	return strings.Join(all, ",")
}

func workerState(w operator.Worker) string {
	switch {
	case !w.Connected:
		return "unconnected"
	case w.Draining:
		return "draining"
	case w.Available && w.Cooldown:
		return "cooldown"
	case w.Available:
		return "ready"
	default:
		return "unavailable"
	}
}

func (r *statusResult) streams() [][]any {
	rows := [][]any{{"CONNECTION", "STREAM", "STATE", "WORKER", "EPOCH", "TOKENS", "SWAPS", "AGE", "CLIENT"}}
	for _, c := range r.found.Connections {
		if len(c.Streams) == 0 {
			rows = append(rows, []any{c.ConnectionID, "", "", "", "", "", "", age(c.Since, r.found.Time), c.Client})
		}
		for _, s := range c.Streams {
			rows = append(rows, []any{
				c.ConnectionID, s.StreamID, s.State, s.Worker, s.Epoch, s.Sequence, s.Swaps, age(s.Started, r.found.Time), c.Client,
			})
		}
	}
	return rows
}

func (r *statusResult) swaps() [][]any {
	rows := [][]any{{"SWAP OF", "STREAM", "KIND", "CAUSE", "FROM", "TO", "EPOCH", "STATE", "FOR"}}
	for _, s := range r.found.Swaps {
		rows = append(rows, []any{s.ConnectionID, s.StreamID, s.Kind, s.Cause, s.From, s.To, s.Epoch, s.State, spent(s.TotalMS)})
	}
	return rows
}
