package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/migration"
)

func (p Process) swapCommand() *cobra.Command {
	return p.asking(&swap{}, &cobra.Command{
		Use: "swap", Short: "moves one stream to another worker, and waits for it",
		Long: `It shows after which token the stream was cut, the gap (how much longer than usual the pause between two tokens
was, at the director), and how long the swap spent in each state.`,
	})
}

type swap struct {
	onStream
	to string
}

func (s *swap) register(flags *pflag.FlagSet) {
	s.onStream.register(flags)
	flags.StringVar(&s.to, "to", "", "`worker` that shall take the stream; any other one if empty")
}

func (s *swap) check() problems {
	wrong := s.onStream.check()
	if s.to != "" {
		wrong = append(wrong, checkName("--to", s.to)...)
	}
	return wrong
}

func (s *swap) run(ctx context.Context, client *operator.Client, _ func(update)) (result, error) {
	record, err := client.Swap(ctx, s.connection, s.stream, s.to)
	if record.State == "" { // it did not begin
		return &outcome{}, err
	}
	return &swapResult{Record: record}, err
}

type swapResult struct {
	outcome
	migration.Record
}

func (r *swapResult) text(w io.Writer) {
	writeTable(w, [][]any{
		{"CONNECTION", "STREAM", "FROM", "TO", "EPOCH", "CUT", "GAP", "TOTAL"},
		{r.ConnectionID, r.StreamID, r.From, r.To, r.Epoch, r.Cut, spent(r.GapMS), spent(r.TotalMS)},
	})
	rows := [][]any{{"STATE", "TIME"}}
	for _, state := range inOrder(r.StateMS) {
		rows = append(rows, []any{state, spent(r.StateMS[state])})
	}
	fmt.Fprintln(w)
	writeTable(w, rows)
}

// inOrder returns the states in which time was spent, in the order in which a swap passes them. Those that this
// client does not know come last.
func inOrder(times map[string]float64) []string {
	var known []string
	for state := migration.Idle; state <= migration.Failed; state++ {
		if _, ok := times[state.String()]; ok {
			known = append(known, state.String())
		}
	}
	for _, state := range slices.Sorted(maps.Keys(times)) {
		if !slices.Contains(known, state) {
			known = append(known, state)
		}
	}
	return known
}
