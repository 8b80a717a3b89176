package quicnet

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/retry"
)

// Flow-control windows, in bytes. What a reader that never reads costs the other side is the stream window.
const (
	clientStreamWindow = 64 << 10
	// The connection's window has room for the windows of all streams that a director allows by default
	// (CONNECTION_SWAP_DIRECTOR_MAX_STREAMS), and of the first one: streams that nobody reads do not block the
	// others. It is a limit, nothing is allocated.
	clientStreams    = 1000
	clientConnWindow = (clientStreams + 1) * clientStreamWindow
	requestWindow    = 256 << 10
	linkStreamWindow = 4 << 20
	linkConnWindow   = 16 << 20
)

const (
	// clientIdle is only the last resort, and for connections without streams. While a stream is open both ends judge
	// the other's silence themselves, with a Watch.
	clientIdle = 30 * time.Second

	// LinkIdle is only the last resort. A director notices a silent link much earlier, by itself
	// (CONNECTION_SWAP_DIRECTOR_LINK_IDLE_TIMEOUT): unlike quic-go's timer, its own does not count time in
	// which the director was stopped or starved.
	LinkIdle      = 30 * time.Second
	linkHandshake = time.Second
)

// initialPacket is the size of UDP payloads before path MTU discovery has found larger ones to arrive: the least that QUIC
// asks of a path (RFC 9000 §14). quic-go's own default, 1280, is lost on paths that carry IP packets of 1280 bytes, such
// as tunnels.
const initialPacket = 1200

// ClientConfig is how a client talks to a director. It sends the keep-alives.
func ClientConfig() *quic.Config {
	return withProof(&quic.Config{
		MaxIdleTimeout:                 clientIdle,
		InitialPacketSize:              initialPacket,
		KeepAlivePeriod:                ClientKeepAlive,
		EnableDatagrams:                true, // for probes
		InitialStreamReceiveWindow:     clientStreamWindow,
		MaxStreamReceiveWindow:         clientStreamWindow,
		InitialConnectionReceiveWindow: clientConnWindow,
		MaxConnectionReceiveWindow:     clientConnWindow,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          -1,
	})
}

// ServeClientsConfig is how a director serves clients: maxStreams token streams, and the first one. Clients may send datagrams,
// to show that they are there. Nobody reads those: quic-go keeps 128 of a connection, and drops the others.
func ServeClientsConfig(maxStreams int) *quic.Config {
	return withProof(&quic.Config{
		MaxIdleTimeout:                 clientIdle,
		InitialPacketSize:              initialPacket,
		EnableDatagrams:                true,
		InitialStreamReceiveWindow:     requestWindow,
		MaxStreamReceiveWindow:         requestWindow,
		InitialConnectionReceiveWindow: 4 * requestWindow,
		MaxConnectionReceiveWindow:     4 * requestWindow,
		MaxIncomingStreams:             int64(maxStreams) + 1,
		MaxIncomingUniStreams:          http3Streams,
	})
}

// http3Streams are the unidirectional streams that a client of HTTP/3 opens: control, and two of QPACK (RFC 9114 §6.2, RFC 9204
// §4.2). Native clients open none.
const http3Streams = 3

// LinkConfig is used on both ends of a link. keepAlive is the director's; zero on a worker.
func LinkConfig(keepAlive time.Duration) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           linkHandshake,
		MaxIdleTimeout:                 LinkIdle,
		InitialPacketSize:              initialPacket,
		KeepAlivePeriod:                keepAlive,
		EnableDatagrams:                true,
		InitialStreamReceiveWindow:     linkStreamWindow,
		MaxStreamReceiveWindow:         linkStreamWindow,
		InitialConnectionReceiveWindow: linkConnWindow,
		MaxConnectionReceiveWindow:     linkConnWindow,
		MaxIncomingStreams:             1,
		MaxIncomingUniStreams:          MaxTokenStreams,
	}
}

// MaxTokenStreams bounds the unidirectional streams on which one link carries tokens.
const MaxTokenStreams = 4

// MgmtConfig is used on both ends of a MGMT connection; it is lost after idle without a packet. Where there are heartbeats
// it is not pinged, unless one is late.
func MgmtConfig(idle time.Duration) *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:        idle,
		InitialPacketSize:     initialPacket,
		KeepAlivePeriod:       idle * 2 / 3,
		MaxIncomingStreams:    8,
		MaxIncomingUniStreams: -1,
	}
}

// Listener serves QUIC on one UDP socket.
type Listener struct {
	*quic.Listener

	loop       acceptLoop
	transport  *quic.Transport
	socket     net.PacketConn
	handshakes *handshakes
}

// Listen binds addr on nw and serves QUIC there. Unfinished handshakes are bounded, and end soon.
func Listen(nw Network, addr string, tlsConf *tls.Config, conf *quic.Config) (*Listener, error) {
	socket, err := nw.ListenPacket(addr)
	if err != nil {
		return nil, err
	}
	open := newHandshakes()
	tr := &quic.Transport{
		Conn: socket, VerifySourceAddress: open.suspicious,
		ConnContext: func(ctx context.Context, peer *quic.ClientInfo) (context.Context, error) {
			return open.begin(withODCID(ctx), peer)
		},
	}
	conf = conf.Clone()
	conf.HandshakeIdleTimeout = cmp.Or(conf.HandshakeIdleTimeout, handshakeIdle)
	l, err := tr.Listen(tlsConf, conf)
	if err != nil {
		return nil, errors.Join(err, tr.Close(), socket.Close())
	}
	return &Listener{Listener: l, transport: tr, socket: socket, handshakes: open}, nil
}

// Handshakes counts the handshakes with this listener.
func (l *Listener) Handshakes() Handshakes { return l.handshakes.Count() }

// Close ends the listener and the socket. Connections that are still open vanish without a word; close them
// before.
func (l *Listener) Close() error {
	return errors.Join(l.Listener.Close(), l.transport.Close(), l.socket.Close())
}

// Conn is a dialled connection with a socket of its own.
type Conn struct {
	*quic.Conn

	transport *quic.Transport
	socket    net.PacketConn
}

// Dial opens a QUIC connection to addr from a fresh socket. While a listener refuses it for having too many handshakes
// under way, it tries again for some seconds.
func Dial(ctx context.Context, nw Network, addr string, tlsConf *tls.Config, conf *quic.Config) (*Conn, error) {
	socket, remote, err := nw.DialPacket(ctx, addr)
	if err != nil {
		return nil, err
	}
	tr := &quic.Transport{Conn: socket}
	conn, err := dialPatiently(ctx, tr, remote, tlsConf, conf)
	if err != nil {
		_ = tr.Close() // the dial's error is the one that matters
		_ = socket.Close()
		return nil, err
	}
	return &Conn{Conn: conn, transport: tr, socket: socket}, nil
}

// dialPatiently dials until it is not refused, or has been for the eighth time.
func dialPatiently(ctx context.Context, tr *quic.Transport, remote net.Addr, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
	backoff := retry.Backoff{First: 100 * time.Millisecond, Most: time.Second}
	for tries := 1; ; tries++ {
		conn, err := tr.Dial(withODCID(ctx), remote, tlsConf, conf)
		var refused *quic.TransportError
		busy := errors.As(err, &refused) && refused.Remote && refused.ErrorCode == quic.ConnectionRefused
		if !busy || tries == 8 {
			return conn, err
		}
		if !retry.Sleep(ctx, backoff.Next()) {
			return nil, err
		}
	}
}

// Close tells the peer why, and releases the socket.
func (c *Conn) Close(code quic.ApplicationErrorCode, reason string) error {
	return errors.Join(c.CloseWithError(code, reason), c.transport.Close(), c.socket.Close())
}
