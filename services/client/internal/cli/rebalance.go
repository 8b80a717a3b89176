package cli

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
)

func (p Process) rebalanceCommand() *cobra.Command {
	return p.asking(&rebalance{}, &cobra.Command{
		Use: "rebalance", Short: "moves streams from the fullest to the emptiest workers until they are even",
		Long: "It is meant for after a worker was added or came back: nothing moves by itself only because there is more room.",
	})
}

type rebalance struct{ noArguments }

func (*rebalance) register(*pflag.FlagSet) {}
func (*rebalance) check() problems         { return nil }

func (*rebalance) run(ctx context.Context, client *operator.Client, progress func(update)) (result, error) {
	last, err := client.Rebalance(ctx, func(m operator.Moves) { progress(&moves{Moves: m}) })
	return &moves{Moves: last}, err
}
