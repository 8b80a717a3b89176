package openai

import (
	"net"
	"sync"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/telemetry"
)

// listener lets in as many connections as their holders may have. Those beyond are closed at once.
type listener struct {
	net.Listener
	server *Server
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		leave, err := l.server.admit(c.RemoteAddr(), shares.Connections, shares.Sockets)
		if err == nil {
			return &countedConn{Conn: c, leave: leave}, nil
		}
		l.server.turnedAway(c.RemoteAddr(), err)
		_ = c.Close()
	}
}

// countedConn gives its place back when it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// admit counts a connection in, which takes one of each kind besides memory, or returns why it may not be served. leave gives its place back; it may be called again.
func (s *Server) admit(from net.Addr, takes ...shares.Kind) (leave func(), err error) {
	holder := s.shares.Join(holderOf(from))
	var taken []func()
	leave = sync.OnceFunc(func() {
		for _, give := range taken {
			give()
		}
		holder.Leave()
	})
	for _, kind := range append(takes, shares.Bytes) {
		n := 1
		if kind == shares.Bytes {
			n = connectionBytes
		}
		if err := holder.Take(kind, n); err != nil {
			leave()
			return nil, err
		}
		taken = append(taken, func() { holder.Give(kind, n) })
	}
	return leave, nil
}

// turnedAway logs that a connection is not served.
func (s *Server) turnedAway(from net.Addr, err error) {
	s.log.Warn("client refused", zap.Error(err), zap.Stringer("address", from), telemetry.From(from.String()))
}
