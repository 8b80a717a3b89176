package link

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/telemetry"
)

const (
	tetherID           = 16                     // hex digits, followed by a newline
	tetherTimeout      = 5 * time.Second        // for the id
	acceptPause        = 100 * time.Millisecond // where the system has no room for a connection
	maxUnauthenticated = 256                    // connections without an id
)

// unauthenticated are the TCP connections that have not said yet which link they belong to. Anybody can open one, so there is
// a bound, and none can keep others out: a new connection takes the place of the oldest. A director's is among them for
// one way across the network. The tethers of links do not count: there is one for each.
type unauthenticated struct {
	mu    sync.Mutex
	conns []net.Conn // oldest first
}

// add adds a connection, and closes the oldest where there are too many.
func (u *unauthenticated) add(conn net.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.conns) == maxUnauthenticated {
		_ = u.conns[0].Close() // whoever reads from it lets it go
		u.conns = slices.Delete(u.conns, 0, 1)
	}
	u.conns = append(u.conns, conn)
}

// remove reports whether conn still had its place.
func (u *unauthenticated) remove(conn net.Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.Index(u.conns, conn)
	if i < 0 {
		return false
	}
	u.conns = slices.Delete(u.conns, i, i+1)
	return true
}

// acceptTethers serves TCP connections until l is closed. All that counts about a tether is that the kernel of its director's
// machine closes it when the director dies.
func (s *Server) acceptTethers(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	var unknown unauthenticated
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
		case temporary(err):
			s.deps.Log.Warn("cannot accept a tether", zap.Error(err), telemetry.From("this machine"))
			retry.Sleep(ctx, acceptPause)
			continue
		default:
			return err
		}
		unknown.add(conn)
		running.Go(func() { s.serveTether(ctx, conn, &unknown) })
	}
}

// serveTether reads the id of the link that conn belongs to, and then waits: when the one ends the other does too.
func (s *Server) serveTether(ctx context.Context, conn net.Conn, unknown *unauthenticated) {
	defer conn.Close() //nolint:errcheck // nothing was written
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	id, err := readTether(conn)
	if !unknown.remove(conn) || err != nil {
		return
	}
	l := s.bindTether(id)
	if l == nil {
		s.deps.Log.Warn("tether of no link", zap.Stringer("address", conn.RemoteAddr()), telemetry.From(conn.RemoteAddr().String()))
		return
	}
	defer context.AfterFunc(l.conn.Context(), func() { _ = conn.Close() })()
	_, _ = io.Copy(io.Discard, conn) // any end will do
	l.end(errTether)
}

// readTether reads the id of the link that the connection belongs to.
func readTether(conn net.Conn) (string, error) {
	if err := conn.SetReadDeadline(time.Now().Add(tetherTimeout)); err != nil {
		return "", err
	}
	var id [tetherID + 1]byte
	if _, err := io.ReadFull(conn, id[:]); err != nil {
		return "", err
	}
	if id[tetherID] != '\n' {
		return "", errors.New("not a link's id")
	}
	return string(id[:tetherID]), conn.SetReadDeadline(time.Time{})
}

// temporary reports whether accepting may work again in a moment.
func temporary(err error) bool {
	for _, number := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}
