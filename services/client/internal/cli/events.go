package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/config"
)

func (p Process) eventsCommand() *cobra.Command {
	return p.asking(&events{}, &cobra.Command{
		Use: "events", Short: "follows what happens at a director, until it is interrupted",
		Long: `Streams that are opened, placed, moved and finished, handovers and their states, workers that come, go and drain, what was
refused. With --output json each line has all that there is to say.`,
	})
}

type events struct {
	noArguments
	filter operator.EventFilter
	after  string
}

func (e *events) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&e.filter.Kinds, "kind", nil, "only events of this `kind`, such as stream.moved; may be given several times")
	flags.StringVar(&e.filter.ConnectionID, "connection", "", "only those of the connection with this `id` (conn-…)")
	flags.Var((*config.Uint)(&e.filter.StreamID), "stream", "only those of streams with this `number`")
	flags.StringVar(&e.filter.Worker, "worker", "", "only those of the worker with this `name`")
	flags.StringVar(&e.after, "after", "", "begin behind the event with this `id`, as far as the director still has them; 0 for all of those (default: now)")
}

func (e *events) check() problems {
	var wrong problems
	if e.filter.ConnectionID != "" {
		wrong = append(wrong, checkName("--connection", e.filter.ConnectionID)...)
	}
	if e.filter.Worker != "" {
		wrong = append(wrong, checkName("--worker", e.filter.Worker)...)
	}
	if e.after != "" {
		id, err := strconv.ParseUint(e.after, 10, 64)
		if err != nil {
			wrong = append(wrong, config.Problem{Variable: "--after", Value: e.after, Want: "not the id of an event; give a number, or 0"})
		}
		e.filter.After = &id
	}
	return wrong
}

func (e *events) run(ctx context.Context, client *operator.Client, progress func(update)) (result, error) {
	err := client.Events(ctx, e.filter, func(e operator.Event) { progress(&happened{is: e}) })
	return &outcome{}, err
}

// happened is one event.
type happened struct {
	outcome
	is operator.Event
}

// MarshalJSON is the director's own object, marked as every line is.
func (h *happened) MarshalJSON() ([]byte, error) {
	event, err := json.Marshal(h.Event)
	if err != nil {
		return nil, err
	}
	fields := bytes.TrimPrefix(bytes.TrimSpace(h.is.Raw), []byte("{"))
	return fmt.Appendf(nil, `{"event":%s,%s`, event, fields), nil
}

// show is one line: when, what, whom it is about, and what else there is to say.
func (h *happened) show(d *textDisplay) {
	line := h.is.Time.Local().Format("15:04:05.000") + "  " + h.is.Kind
	if h.is.ConnectionID != "" {
		line += "  " + h.is.ConnectionID
	}
	if h.is.StreamID != 0 {
		line += fmt.Sprintf(" stream %d", h.is.StreamID)
	}
	if h.is.Worker != "" {
		line += "  " + h.is.Worker
	}
	if rest := h.rest(); rest != "" {
		line += "  " + rest
	}
	d.print(clean(line), "\n")
}

// rest is what the line has not said yet, by name.
func (h *happened) rest() string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(h.is.Raw, &fields) != nil {
		return "" // decoded before: cannot be
	}
	for _, said := range []string{"id", "time", "kind", "connection_id", "stream_id", "worker"} {
		delete(fields, said)
	}
	var all []string
	for name, value := range fields {
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		all = append(all, name+"="+text)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
