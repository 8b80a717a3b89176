package cli

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
)

func rebalanceCommand() command {
	return command{
		name: "rebalance", summary: "moves streams from the fullest to the emptiest workers until they are even",
		about: "It is meant for after a worker was added or came back: nothing moves by itself only because there is more room.",
	}.asking(func() operation { return &rebalance{} })
}

type rebalance struct{ noArguments }

func (*rebalance) register(*pflag.FlagSet) {}
func (*rebalance) check() problems         { return nil }

func (*rebalance) run(ctx context.Context, client *operator.Client, progress func(*moves)) (result, error) {
	last, err := client.Rebalance(ctx, func(m operator.Moves) { progress(&moves{Moves: m}) })
	return &moves{Moves: last}, err
}
