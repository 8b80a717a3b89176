package operator

import (
	"context"
	"errors"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/wire"
)

// explain gives an error of QUIC, or of a frame, its Code. If ctx has ended, that is the error.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Ended(ctx)
	}
	var known *wire.Error
	var reset *quic.StreamError
	switch {
	case errors.As(err, &known):
		return err
	case fault.Frame(err):
		return fault.Wrap(wire.CodeProtocol, "the director's answer", err)
	case errors.As(err, &reset): // unlike on the USER port, its number means nothing here
		return fault.Wrap(wire.CodeInternal, "the director broke its answer off", err)
	}
	err = fault.Connection(err, wire.ALPNMgmt)
	if errors.Is(err, fault.ErrClosed) {
		return fault.New(wire.CodeCancelled, err, "%v", err)
	}
	return err
}
