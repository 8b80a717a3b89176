package mgmt

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/telemetry"
)

// sendBuffer is what the kernel keeps of an answer that its reader has not taken, in bytes; it doubles it.
const sendBuffer = 64 << 10

// How long a peer may take for its first byte, and for a TLS handshake.
const (
	firstByteTimeout = 2 * time.Second
	handshakeTimeout = 5 * time.Second
)

// Pauses after which Accept tries again where the process has no descriptor left.
const (
	firstPause = 5 * time.Millisecond
	longPause  = time.Second
)

// listener accepts within the bounds of its connections, and hands them out when it is known whether they speak TLS, the
// handshake done. Its goroutines are one that accepts, and one for each connection that has not said its first word; they
// end after Close, and are then waited for by wait.
type listener struct {
	net.Listener

	ctx     context.Context // of all that waits
	table   *connections
	tls     *tls.Config // nil where nobody speaks TLS
	log     *zap.Logger
	ready   chan net.Conn
	failed  chan struct{} // closed when no more come
	err     error         // why; readable then
	running sync.WaitGroup
}

// start begins to accept.
func (l *listener) start() {
	l.ready, l.failed = make(chan net.Conn), make(chan struct{})
	l.running.Go(func() {
		defer close(l.failed)
		for {
			c, err := l.next()
			if err != nil {
				l.err = err
				return
			}
			l.running.Go(func() { l.handOver(c) })
		}
	})
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.failed:
		return nil, l.err
	}
}

// wait returns when no goroutine of the listener is left. ctx has ended, and Close has been called.
func (l *listener) wait() { l.running.Wait() }

// next accepts a connection. Where the process has no descriptor left, it closes another one for it.
func (l *listener) next() (*conn, error) {
	pause := firstPause
	for {
		inner, err := l.Listener.Accept()
		if err == nil {
			if tcp, ok := inner.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(sendBuffer) // with the system's own it works too, and takes more memory
			}
			return l.table.admit(l.ctx, inner), nil
		}
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) || l.ctx.Err() != nil {
			return nil, err
		}
		l.log.Warn("no descriptor left for a connection to the MGMT port, closing another one; raise the limit (ulimit -n)",
			zap.Error(err), telemetry.From(""))
		l.table.makeRoom()
		select {
		case <-time.After(pause):
		case <-l.ctx.Done():
		}
		pause = min(2*pause, longPause)
	}
}

// handOver gives a connection to Accept, or closes it.
func (l *listener) handOver(c *conn) {
	defer context.AfterFunc(l.ctx, func() { c.Close() })() //nolint:errcheck // nobody waits for it
	ready, err := l.greet(c)
	if err == nil {
		select {
		case l.ready <- ready:
			return
		case <-l.ctx.Done():
		case <-l.failed:
		}
	}
	_ = c.Close() // the first error counts
}

// greet finds out whether the peer speaks TLS, and does the handshake with one that does.
func (l *listener) greet(c *conn) (net.Conn, error) {
	if l.tls == nil {
		return c, nil
	}
	secure, err := c.speaksTLS()
	if err != nil || !secure {
		return c, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	wrapped := tls.Server(c, l.tls)
	if err := wrapped.HandshakeContext(ctx); err != nil && l.ctx.Err() != nil {
		return nil, err
	} else if err != nil {
		l.log.Warn("refused on the MGMT port", zap.Stringer("address", c.RemoteAddr()), zap.String("reason", err.Error()),
			telemetry.From(c.RemoteAddr().String()))
		return nil, err
	}
	return wrapped, nil
}
