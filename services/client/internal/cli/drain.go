package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/config"
)

const defaultDrainTimeout = time.Minute

func (p Process) drainCommand() *cobra.Command {
	return p.asking(&drain{}, &cobra.Command{
		Use: "drain WORKER", Short: "takes a worker out of use and moves its streams to others",
		Long: `It ends when the worker is empty, so that it can be stopped. If that takes too long, it says what is in the way.
client undrain puts the worker back into use.`,
	})
}

type drain struct {
	onWorker
	timeout time.Duration
	force   bool
}

func (d *drain) register(flags *pflag.FlagSet) {
	flags.DurationVar(&d.timeout, "timeout", defaultDrainTimeout, "how long it may take until the worker is empty")
	flags.BoolVar(&d.force, "force", false, "even if no other worker is there to take the streams")
}

func (d *drain) check() problems {
	wrong := d.onWorker.check()
	if d.timeout <= 0 {
		wrong = append(wrong, config.Problem{
			Variable: "--timeout", Value: d.timeout.String(), Want: "not above 0; give a duration such as 60s",
		})
	}
	return wrong
}

func (d *drain) run(ctx context.Context, client *operator.Client, progress func(update)) (result, error) {
	last, err := client.Drain(ctx, d.worker, d.timeout, d.force, func(m operator.Moves) {
		progress(&moves{Worker: d.worker, Moves: m})
	})
	return &moves{Worker: d.worker, Moves: last}, err
}
