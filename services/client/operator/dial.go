package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// idle is how long a director may be silent before it is lost.
const idle = 10 * time.Second

// Options are for Dial.
type Options struct {
	TLS     identity.Source // the roots to check the director with, and an operator's certificate
	Network quicnet.Network // nil for the operating system's
}

// Client is a connection to a director's MGMT port. It is safe for concurrent use.
type Client struct {
	quic *quicnet.Conn
}

// Dial connects to a director's MGMT port; addr is "host:port". Where the host has several addresses it tries
// the next one before the last has failed, and gives the first that answers. ctx bounds the dialling, not the connection.
//
// Whether the director takes the certificate is known with the answer to the first request.
func Dial(ctx context.Context, addr string, opts Options) (*Client, error) {
	if opts.TLS == nil {
		return nil, wire.Errorf(wire.CodeInvalid, "operator: Options.TLS is missing")
	}
	if opts.Network == nil {
		opts.Network = quicnet.OS{}
	}
	conf := quicnet.MgmtConfig(idle)
	conf.KeepAlivePeriod = idle / 3 // no heartbeat shows that the director lives
	client, err := quicnet.DialByName(ctx, opts.Network, addr, func(ctx context.Context, addr string) (*Client, error) {
		tls := identity.ClientTLS(opts.TLS, wire.ALPNMgmt, identity.Director)
		conn, err := quicnet.Dial(ctx, opts.Network, addr, tls, conf)
		if err != nil {
			return nil, explain(ctx, err)
		}
		return &Client{quic: conn}, nil
	})
	if err != nil {
		return nil, explain(ctx, err)
	}
	return client, nil
}

// Close ends the connection, and gives up what is still being asked. It returns once that is sent.
func (c *Client) Close() error {
	if err := c.quic.Close(wire.QUICOk, string(wire.CodeCancelled)); err != nil {
		return fmt.Errorf("closing the connection: %w", err)
	}
	return nil
}
