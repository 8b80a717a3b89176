package transfer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// lineIdle is how long a connection is kept that nobody uses: longer than it takes to the next checkpoint by default. A
// handshake costs more than a small state.
const lineIdle = 10 * time.Second

// peer is a node that states are pulled from.
type peer struct {
	role identity.Role
	addr string
}

// line is the connection to a peer, shared by all who pull from it.
type line struct {
	dialled chan struct{} // closed once one of the next two is set
	conn    *quicnet.Conn
	err     error

	users int         // guarded by lines.mu, as is idle
	idle  *time.Timer // closes it; nil while it has users
}

// lines has at most one line to each peer. It is safe for concurrent use. It owns no goroutine, but timers: Close stops
// them.
type lines struct {
	dial func(ctx context.Context, to peer) (*quicnet.Conn, error)

	mu     sync.Mutex
	to     map[peer]*line
	closed bool
}

// take returns the line to a peer, which is dialled if there is none that works. Give it back.
func (l *lines) take(ctx context.Context, to peer) (*line, error) {
	l.mu.Lock()
	n, found := l.to[to]
	if found && n.dead() {
		if n.users == 0 { // else the last one closes it
			n.idle.Stop()
			defer n.close()
		}
		found = false
	}
	if !found {
		n = &line{dialled: make(chan struct{})}
		l.to[to] = n
	}
	n.users++
	if n.idle != nil {
		n.idle.Stop()
		n.idle = nil
	}
	l.mu.Unlock()
	if !found {
		n.conn, n.err = l.dial(ctx, to)
		close(n.dialled)
	}
	var err error
	select {
	case <-n.dialled:
		if err = n.err; err != nil && found { // its cause may be the end of another pull
			err = errors.New("the dial of another pull failed: " + err.Error())
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		l.give(to, n)
		return nil, err
	}
	return n, nil
}

// dead reports whether a line will never work again.
func (n *line) dead() bool {
	select {
	case <-n.dialled:
		return n.err != nil || n.conn.Context().Err() != nil
	default:
		return false
	}
}

// give gives a line back.
func (l *lines) give(to peer, n *line) {
	if l.left(to, n) {
		n.close()
	}
}

// left reports whether that was the last user of a line that nobody will use again.
func (l *lines) left(to peer, n *line) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n.users--
	switch {
	case n.users > 0:
		return false
	case l.to[to] != n: // another one has taken its place
		return true
	case l.closed || n.dead():
		delete(l.to, to)
		return true
	default:
		n.idle = time.AfterFunc(lineIdle, func() { l.expire(to, n) })
		return false
	}
}

func (l *lines) expire(to peer, n *line) {
	l.mu.Lock()
	unused := n.users == 0 && l.to[to] == n
	if unused {
		delete(l.to, to)
	}
	l.mu.Unlock()
	if unused {
		n.close()
	}
}

// close closes a line that is in nobody's hands.
func (n *line) close() {
	if n.conn != nil {
		_ = n.conn.Close(wire.QUICOk, "") // nothing is on it
	}
}

// Close closes all lines, those that have users when they are given back.
func (l *lines) Close() {
	l.mu.Lock()
	l.closed = true
	var unused []*line
	for to, n := range l.to {
		if n.users == 0 {
			n.idle.Stop()
			delete(l.to, to)
			unused = append(unused, n)
		}
	}
	l.mu.Unlock()
	for _, n := range unused {
		n.close()
	}
}
