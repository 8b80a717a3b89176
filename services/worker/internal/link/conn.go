package link

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
)

// Listener is where directors connect.
type Listener interface {
	Accept(ctx context.Context) (Conn, error)
	Close() error
}

// Conn is a director's connection: what a link uses of QUIC. Its methods are those of quic.Conn.
type Conn interface {
	AcceptStream(ctx context.Context) (Stream, error)
	OpenUniStreamSync(ctx context.Context) (SendStream, error)
	SendDatagram(b []byte) error
	CloseWithError(code quic.ApplicationErrorCode, reason string) error
	RemoteAddr() net.Addr
	Context() context.Context
}

// SendStream is what a link writes to.
type SendStream interface {
	io.WriteCloser
	SetWriteDeadline(t time.Time) error
}

// Stream is a SendStream that it also reads from.
type Stream interface {
	SendStream
	io.Reader
	SetReadDeadline(t time.Time) error
}

// Over returns the Listener of a QUIC port.
func Over(l *quicnet.Listener) Listener { return listener{l} }

type listener struct{ *quicnet.Listener }

func (l listener) Accept(ctx context.Context) (Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

type conn struct{ *quic.Conn }

func (c conn) AcceptStream(ctx context.Context) (Stream, error) {
	s, err := c.Conn.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c conn) OpenUniStreamSync(ctx context.Context) (SendStream, error) {
	s, err := c.Conn.OpenUniStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}
