package operator

import (
	"context"
	"encoding/json"

	"github.com/connswap/connswap/shared/wire"
)

// Undrain puts a worker back into use.
func (c *Client) Undrain(ctx context.Context, worker string) error {
	return c.now(ctx, "undrain", struct {
		Worker string `json:"worker"`
	}{wire.Text(worker)})
}

// Confirm lets a swap go on that waits for an operator. stream 0 is the only one of its connection.
func (c *Client) Confirm(ctx context.Context, connection string, stream uint64) error {
	return c.now(ctx, "confirm", streamOf{wire.Text(connection), stream})
}

// Veto ends a swap that waits for an operator; the stream stays where it is. The reason is for the director's log
// and for whoever asked for the swap; it may be empty.
func (c *Client) Veto(ctx context.Context, connection string, stream uint64, reason string) error {
	return c.now(ctx, "veto", struct {
		streamOf
		Reason string `json:"reason"`
	}{streamOf{wire.Text(connection), stream}, wire.Text(reason)})
}

// streamOf names a stream in a request.
type streamOf struct {
	ConnectionID string `json:"connection_id"`
	StreamID     uint64 `json:"stream_id"`
}

// now asks for what is done at once.
func (c *Client) now(ctx context.Context, kind string, body any) error {
	ctx, cancel := within(ctx, answerTimeout)
	defer cancel()
	result, err := c.do(ctx, kind, body, func(json.RawMessage) {})
	if err != nil {
		return err
	}
	var done struct {
		Message string `json:"message"`
	}
	return decode(result, "result", &done)
}
