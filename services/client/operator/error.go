package operator

import (
	"context"
	"errors"
	"strings"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

// explain gives an error of a connection, or of an answer, its Code. If ctx has ended, that is the error.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = fault.Ended(ctx)
	}
	var known *wire.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, fault.ErrClosed):
		return fault.New(wire.CodeCancelled, err, "%v", err)
	case ctx.Err() != nil:
		return err
	case strings.Contains(err.Error(), "malformed HTTP"): // net/http keeps the type to itself
		return fault.New(wire.CodeProtocol, err, "what answers does not speak HTTP: %v", err)
	}
	return fault.Connection(err, identity.HTTP)
}

// duringRequest is explain for a request that may have had an effect.
func duringRequest(ctx context.Context, err error) error {
	err = explain(ctx, err)
	var known *wire.Error
	if ctx.Err() == nil && errors.As(err, &known) && known.Code == wire.CodeLost {
		return fault.New(wire.CodeLost, err,
			"%s; what was asked for may have been done in part: see the status once the director is there again", known.Message)
	}
	return err
}
