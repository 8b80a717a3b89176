package connswap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// Options are for Dial.
type Options struct {
	TLS     identity.Source // the roots to check the director with, and the client's own certificate if it has one
	Network quicnet.Network // nil for the operating system's
	Name    string          // of this client, for the director's logs; may be empty
	Key     string          // what lets this client in, at a director that has keys; no log and no error shows it

	// KeepAlive is how often a silent director is pinged, IdleTimeout how long nothing may come from it while a stream is
	// open: then it counts as lost. If zero they are 2 s and 6 s. The director has a timeout of its own. When tokens stop
	// coming, the director is asked for a sign of life sooner, a few times.
	KeepAlive, IdleTimeout time.Duration
}

// Dial connects to a director's USER port; target is "host:port". Where the host has several addresses it tries the next
// one 250 ms after the last, or as soon as that has failed, and takes the first that welcomes it (RFC 8305); the others are
// closed. ctx bounds the dialling, not the connection.
//
// The error names each address that was tried with its cause; all causes are in its chain.
func Dial(ctx context.Context, target string, opts Options) (*Conn, error) {
	if opts.TLS == nil {
		return nil, errors.New("connswap: Options.TLS is missing")
	}
	if opts.Network == nil {
		opts.Network = quicnet.OS{}
	}
	conn, err := quicnet.DialByName(ctx, opts.Network, target, func(ctx context.Context, addr string) (*Conn, error) {
		return dial(ctx, target, addr, opts)
	})
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return nil, fmt.Errorf("%w: %w", fault.Ended(ctx), err)
	default:
		return nil, explain(err) // each address with its own
	}
}

func dial(ctx context.Context, target, addr string, opts Options) (*Conn, error) {
	c, err := connect(ctx, addr, opts)
	if err != nil {
		return nil, explainIn(ctx, err)
	}
	conn, err := newConn(ctx, target, opts, c)
	if err != nil {
		_ = c.Close() // the greeting's error is the one that matters
		return nil, explainIn(ctx, err)
	}
	return conn, nil
}
