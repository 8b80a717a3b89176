package mgmt

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/telemetry"
)

// sendBuffer is what the kernel keeps of an answer that its reader has not taken, in bytes; it doubles it.
const sendBuffer = 64 << 10

// Pauses after which Accept tries again where the process has no descriptor left.
const (
	firstPause = 5 * time.Millisecond
	longPause  = time.Second
)

// boundedListener accepts within the bounds of its connections.
type boundedListener struct {
	net.Listener

	ctx   context.Context // ends the pauses
	table *connections
	log   *zap.Logger
}

// Accept implements net.Listener. Where the process has no descriptor left, it closes a connection for the next one.
func (l *boundedListener) Accept() (net.Conn, error) {
	pause := firstPause
	for {
		inner, err := l.Listener.Accept()
		if err == nil {
			if tcp, ok := inner.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(sendBuffer) // with the system's own it works too, and takes more memory
			}
			return l.table.admit(inner), nil
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
