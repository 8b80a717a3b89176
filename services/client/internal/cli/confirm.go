package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/connswap/connswap/services/client/operator"
)

func (p Process) confirmCommand() *cobra.Command {
	return p.asking(&confirm{}, &cobra.Command{
		Use: "confirm", Short: "lets a swap go on that waits for an operator",
		Long: "client status shows those that wait, in the state WaitingConfirmation.",
	})
}

type confirm struct{ onStream }

func (c *confirm) run(ctx context.Context, client *operator.Client, _ func(update)) (result, error) {
	return c.decided("confirmed"), client.Confirm(ctx, c.connection, c.stream)
}
