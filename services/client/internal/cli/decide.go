package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/connswap/connswap/services/client/operator"
)

func (p Process) confirmCommand() *cobra.Command {
	return p.asking(&confirm{}, &cobra.Command{
		Use: "confirm", Short: "lets a swap go on that waits for an operator",
		Long: "client status shows those that wait, in the state WaitingConfirmation.",
	})
}

func (p Process) vetoCommand() *cobra.Command {
	return p.asking(&veto{}, &cobra.Command{
		Use: "veto", Short: "ends a swap that waits for an operator",
		Long: "The stream stays where it is. client status shows the swaps that wait, in the state WaitingConfirmation.",
	})
}

type confirm struct{ onStream }

func (c *confirm) run(ctx context.Context, client *operator.Client, _ func(*moves)) (result, error) {
	return c.decided("confirmed"), client.Confirm(ctx, c.connection, c.stream)
}

type veto struct {
	onStream
	reason string
}

func (v *veto) register(flags *pflag.FlagSet) {
	v.onStream.register(flags)
	flags.StringVar(&v.reason, "reason", "", "`text` for the director's log and for whoever asked for the swap")
}

func (v *veto) run(ctx context.Context, client *operator.Client, _ func(*moves)) (result, error) {
	return v.decided("vetoed"), client.Veto(ctx, v.connection, v.stream, v.reason)
}

// decision is what was decided on a swap, or was to be.
type decision struct {
	outcome
	ConnectionID string `json:"connection_id"`
	StreamID     uint64 `json:"stream_id,omitempty"` // if it was named
	Decision     string `json:"decision"`
}

func (o *onStream) decided(how string) *decision {
	return &decision{ConnectionID: o.connection, StreamID: o.stream, Decision: how}
}

func (d *decision) text(w io.Writer) {
	which := d.ConnectionID
	if d.StreamID != 0 {
		which += fmt.Sprintf(" stream %d", d.StreamID)
	}
	fmt.Fprintf(w, "%s: the swap is %s\n", which, d.Decision)
}
