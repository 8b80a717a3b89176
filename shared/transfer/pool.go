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

// connIdleTimeout is how long a connection stays open without users: longer than it takes to the next checkpoint by
// default. A handshake costs more than a small state.
const connIdleTimeout = 10 * time.Second

// peer is a node that states are pulled from.
type peer struct {
	role identity.Role
	addr string
}

// sharedConn is the connection to a peer, shared by all pulls from it.
type sharedConn struct {
	dialled chan struct{} // closed once one of the next two is set
	conn    *quicnet.Conn
	err     error

	users int         // guarded by connPool.mu, as is idle
	idle  *time.Timer // closes it; nil while it has users
}

// connPool has at most one connection to each peer that new pulls get. It is safe for concurrent use. It owns no goroutine,
// but timers: Close stops them.
type connPool struct {
	dial func(ctx context.Context, to peer) (*quicnet.Conn, error)

	mu     sync.Mutex
	to     map[peer]*sharedConn
	closed bool
}

// acquire returns the connection to a peer, which is dialled if there is none that works. Give it back with release.
func (l *connPool) acquire(ctx context.Context, to peer) (*sharedConn, error) {
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
		n = &sharedConn{dialled: make(chan struct{})}
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
		l.release(to, n)
		return nil, err
	}
	return n, nil
}

// dead reports whether a connection will never work again.
func (n *sharedConn) dead() bool {
	select {
	case <-n.dialled:
		return n.err != nil || n.conn.Context().Err() != nil
	default:
		return false
	}
}

// release gives a connection back.
func (l *connPool) release(to peer, n *sharedConn) {
	if l.endUse(to, n) {
		n.close()
	}
}

// endUse counts a user less, and reports whether that was the last one of a connection that no pull will get again.
func (l *connPool) endUse(to peer, n *sharedConn) bool {
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
		n.idle = time.AfterFunc(connIdleTimeout, func() { l.expire(to, n) })
		return false
	}
}

func (l *connPool) expire(to peer, n *sharedConn) {
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

// close closes a connection that has no users.
func (n *sharedConn) close() {
	if n.conn != nil {
		_ = n.conn.Close(wire.QUICOk, "") // nothing is on it
	}
}

// Close closes all connections, those that have users when they are released.
func (l *connPool) Close() {
	l.mu.Lock()
	l.closed = true
	var unused []*sharedConn
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
