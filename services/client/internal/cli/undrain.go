package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
)

func (p Process) undrainCommand() *cobra.Command {
	return p.asking(&undrain{}, &cobra.Command{
		Use: "undrain WORKER", Short: "puts a worker back into use",
		Long: "It takes new streams again. Those that were moved away do not come back by themselves; see client rebalance.",
	})
}

type undrain struct{ onWorker }

func (*undrain) register(*pflag.FlagSet) {}

func (u *undrain) run(ctx context.Context, client *operator.Client, _ func(update)) (result, error) {
	return &undrained{Worker: u.worker}, client.Undrain(ctx, u.worker)
}

type undrained struct {
	outcome
	Worker string `json:"worker"`
}

func (r *undrained) text(w io.Writer) { fmt.Fprintf(w, "%s is in use again\n", r.Worker) }
