package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
)

func (p Process) vetoCommand() *cobra.Command {
	return p.asking(&veto{}, &cobra.Command{
		Use: "veto", Short: "ends a swap that waits for an operator",
		Long: "The stream stays where it is. client status shows the swaps that wait, in the state WaitingConfirmation.",
	})
}

type veto struct {
	onStream
	reason string
}

func (v *veto) register(flags *pflag.FlagSet) {
	v.onStream.register(flags)
	flags.StringVar(&v.reason, "reason", "", "`text` for the director's log and for whoever asked for the swap")
}

func (v *veto) run(ctx context.Context, client *operator.Client, _ func(update)) (result, error) {
	return v.decided("vetoed"), client.Veto(ctx, v.connection, v.stream, v.reason)
}
