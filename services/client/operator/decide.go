package operator

import (
	"context"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Undrain puts a worker back into use.
func (c *Client) Undrain(ctx context.Context, worker string) error {
	return c.do(ctx, &wirepb.Operate{Request: &wirepb.Operate_Undrain{Undrain: &wirepb.UndrainRequest{
		Worker: wire.Text(worker),
	}}})
}

// Confirm lets a swap go on that waits for an operator. stream 0 is the only one of its connection.
func (c *Client) Confirm(ctx context.Context, connection string, stream uint64) error {
	return c.decide(ctx, &wirepb.DecideRequest{ConnectionId: wire.Text(connection), StreamId: stream, Confirm: true})
}

// Veto ends a swap that waits for an operator; the stream stays where it is. The reason is for the director's log
// and for whoever asked for the swap; it may be empty.
func (c *Client) Veto(ctx context.Context, connection string, stream uint64, reason string) error {
	return c.decide(ctx, &wirepb.DecideRequest{
		ConnectionId: wire.Text(connection), StreamId: stream, Reason: wire.Text(reason),
	})
}

func (c *Client) decide(ctx context.Context, decision *wirepb.DecideRequest) error {
	return c.do(ctx, &wirepb.Operate{Request: &wirepb.Operate_Decide{Decide: decision}})
}

// do asks for what is done at once.
func (c *Client) do(ctx context.Context, request *wirepb.Operate) error {
	ctx, cancel := within(ctx, answerTimeout)
	defer cancel()
	_, err := c.ask(ctx, request, unheard)
	return err
}
