package link

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// Dialer connects to workers.
type Dialer interface {
	Dial(ctx context.Context, peer Peer) (Conn, error)
}

// Conn is what a link needs of its connection. The director opens the control stream and the tether, the worker the
// token streams.
type Conn interface {
	OpenControl(ctx context.Context) (Control, error)
	AcceptTokens(ctx context.Context) (io.Reader, error)
	ReceiveDatagram(ctx context.Context) ([]byte, error) // carries Progress
	DialTether(ctx context.Context) (io.ReadWriteCloser, error)
	Stats() quic.ConnectionStats
	LocalAddr() net.Addr
	// Close tells the worker why, and ends all reads and writes.
	Close(code quic.ApplicationErrorCode, reason string) error
}

// Control is the control stream.
type Control interface {
	io.ReadWriter
	SetDeadline(t time.Time) error
}

// QUIC dials workers over a network.
type QUIC struct {
	Network   quicnet.Network
	TLS       identity.Source
	KeepAlive time.Duration // between pings to a worker that is silent
}

// Dial opens a connection from a socket of its own: when nothing listens on the other side any more, the kernel
// reports that on the socket, and it must concern no other link.
func (d QUIC) Dial(ctx context.Context, peer Peer) (Conn, error) {
	tlsConf := identity.ClientTLS(d.TLS, wire.ALPNLink, identity.Worker)
	conn, err := quicnet.Dial(ctx, d.Network, peer.UserAddr, tlsConf, quicnet.LinkConfig(d.KeepAlive))
	if err != nil {
		return nil, err
	}
	if err := entitled(identity.PeerNames(conn.ConnectionState().TLS), peer); err != nil {
		return nil, errors.Join(err, conn.Close(wire.QUICRefused, wire.Text(err.Error())))
	}
	return quicConn{Conn: conn, network: d.Network, addr: peer.UserAddr}, nil
}

// entitled returns an error unless whoever has a certificate with such names may be a worker: one that registered with a
// certificate which names it has to show such a one again, and nobody may be called what his certificate does not say.
func entitled(names []string, peer Peer) error {
	if slices.Contains(names, peer.Label) || len(names) == 0 && !peer.Named {
		return nil
	}
	return wire.Errorf(wire.CodeUnauthorized, "the certificate at %s names %q, not worker %q", peer.UserAddr, names, peer.Label)
}

// quicConn is a Conn over QUIC, with a tether to the same address.
type quicConn struct {
	*quicnet.Conn

	network quicnet.Network
	addr    string
}

func (c quicConn) OpenControl(ctx context.Context) (Control, error) { return c.OpenStreamSync(ctx) }

func (c quicConn) AcceptTokens(ctx context.Context) (io.Reader, error) { return c.AcceptUniStream(ctx) }

func (c quicConn) DialTether(ctx context.Context) (io.ReadWriteCloser, error) {
	return c.network.DialStream(ctx, c.addr)
}

func (c quicConn) Stats() quic.ConnectionStats { return c.ConnectionStats() }
