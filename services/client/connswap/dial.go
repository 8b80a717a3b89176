package connswap

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// Options are for Dial.
type Options struct {
	TLS     identity.Source // the roots to check the director with, and the client's own certificate if it has one
	Network quicnet.Network // nil for the operating system's
	Name    string          // of this client, for the director's logs; may be empty
}

// Dial connects to a director's USER port; target is "host:port". Where the host has several addresses it tries
// them in turn, and gives the first that welcomes it. ctx bounds the dialling, not the connection.
//
// The errors of all addresses are in the chain of the error.
func Dial(ctx context.Context, target string, opts Options) (*Conn, error) {
	if opts.TLS == nil {
		return nil, errors.New("connswap: Options.TLS is missing")
	}
	if opts.Network == nil {
		opts.Network = quicnet.OS{}
	}
	addrs, err := opts.Network.Resolve(ctx, target)
	if err != nil {
		return nil, explainIn(ctx, err)
	}
	var failed attempts
	for _, addr := range addrs {
		conn, err := dial(ctx, addr, opts)
		if err == nil {
			return conn, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(failed) == 0 {
		return nil, wire.Errorf(CodeLost, "%s has no address", target)
	}
	return nil, failed
}

func dial(ctx context.Context, addr string, opts Options) (*Conn, error) {
	tls := identity.ClientTLS(opts.TLS, wire.ALPNClient, identity.Director)
	qc, err := quicnet.Dial(ctx, opts.Network, addr, tls, quicnet.ClientConfig())
	if err != nil {
		return nil, explainIn(ctx, err)
	}
	conn := &Conn{quic: qc}
	if err := conn.greet(ctx, opts.Name); err != nil {
		_ = qc.Close(wire.QUICOk, string(CodeCancelled)) // the greeting's error is the one that matters
		return nil, explainIn(ctx, err)
	}
	return conn, nil
}

// attempts are the errors of several addresses, on one line.
type attempts []error

func (a attempts) Error() string {
	texts := make([]string, len(a))
	for i, err := range a {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (a attempts) Unwrap() []error { return a }
