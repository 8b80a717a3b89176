package operator

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// keepIdle is how long a connection is kept for the next request; a director keeps it longer.
const keepIdle = 20 * time.Second

// Options are for Dial.
type Options struct {
	TLS     identity.Source // the roots to check the director with, and an operator's certificate
	Network quicnet.Network // nil for the operating system's
}

// Client asks a director's MGMT port, over HTTPS. It is safe for concurrent use.
type Client struct {
	url       string
	transport *http.Transport

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc

	mu     sync.Mutex // held to begin, and to close: nothing begins afterwards
	asking sync.WaitGroup
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
	d := dialer{network: opts.Network, addr: addr, tls: identity.ClientTLS(opts.TLS, identity.HTTP, identity.Director)}
	c := &Client{url: "https://" + identity.Director.ServerName(), transport: &http.Transport{DialTLSContext: d.dial, IdleConnTimeout: keepIdle}}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	if err := c.greet(ctx); err != nil {
		c.transport.CloseIdleConnections()
		return nil, explain(ctx, err)
	}
	return c, nil
}

// greet finds out whether a director is there.
func (c *Client) greet(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/livez", nil)
	if err != nil {
		return err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = readAll(resp.Body, 1<<10)
	return err
}

// dialer makes connections to a director, wherever its name leads now.
type dialer struct {
	network quicnet.Network
	addr    string
	tls     *tls.Config
}

// dial is for http.Transport.
func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return quicnet.DialByName(ctx, d.network, d.addr, func(ctx context.Context, addr string) (net.Conn, error) {
		inner, err := d.network.DialStream(ctx, addr)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(inner, d.tls)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = inner.Close() // the first error counts
			return nil, err
		}
		return conn, nil
	})
}

// Close ends the connections, and gives up what is still being asked. It returns once that is sent, or cannot be.
func (c *Client) Close() error {
	c.mu.Lock()
	c.cancel(fmt.Errorf("connection: %w", fault.ErrClosed))
	c.mu.Unlock()
	c.asking.Wait()
	c.transport.CloseIdleConnections()
	return nil
}
