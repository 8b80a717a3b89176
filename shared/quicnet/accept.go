package quicnet

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// acceptTimeout is how long whoever accepts connections may take to come back for the next one. It starts a goroutine,
// and no more.
const acceptTimeout = time.Second

// acceptLoop knows since when whoever accepts connections has not come back.
type acceptLoop struct {
	away atomic.Pointer[time.Time] // nil while it waits for a connection, before it begins, and after the end
}

// Accept returns the next connection whose handshake is complete.
func (l *Listener) Accept(ctx context.Context) (*quic.Conn, error) {
	l.loop.away.Store(nil)
	conn, err := l.Listener.Accept(ctx)
	if err == nil {
		now := time.Now()
		l.loop.away.Store(&now)
		l.handshakes.finish(conn)
	}
	return conn, err
}

// Accepting returns nil unless the loop that calls Accept is stuck.
func (l *Listener) Accepting() error {
	if since := l.loop.away.Load(); since != nil && time.Since(*since) > acceptTimeout {
		return fmt.Errorf("no connection is accepted since %v", time.Since(*since).Round(time.Millisecond))
	}
	return nil
}
