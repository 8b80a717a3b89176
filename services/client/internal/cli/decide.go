package cli

import (
	"fmt"
	"io"
)

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
