package server

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
)

const (
	tetherLine    = 16 // hex digits, followed by a newline
	tetherTimeout = 5 * time.Second
	tetherPause   = 100 * time.Millisecond
	maxStrangers  = 256
)

// strangers are the connections that have not said yet which link they belong to. Anybody can open one, so they
// are few, and none can keep others out: a new one takes the place of the oldest. A director's is among them for
// one way across the network. The tethers of links do not count: there is one for each.
type strangers struct {
	mu    sync.Mutex
	conns []net.Conn // oldest first
}

func (s *strangers) add(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) == maxStrangers {
		_ = s.conns[0].Close() // whoever reads from it lets it go
		s.conns = slices.Delete(s.conns, 0, 1)
	}
	s.conns = append(s.conns, conn)
}

// remove reports whether conn still had its place.
func (s *strangers) remove(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.conns, conn)
	if i < 0 {
		return false
	}
	s.conns = slices.Delete(s.conns, i, i+1)
	return true
}

// acceptTethers holds TCP connections. All that counts about one is that it ends when its director dies.
func (s *Server) acceptTethers(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	var unknown strangers
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
		case passing(err):
			s.deps.Log.Warn("cannot accept a tether", zap.Error(err))
			sleep(ctx, tetherPause)
			continue
		default:
			return err
		}
		unknown.add(conn)
		running.Go(func() { s.holdTether(ctx, conn, &unknown) })
	}
}

// holdTether reads the link's id and then waits for the end; with it the link ends, and the other way round.
func (s *Server) holdTether(ctx context.Context, conn net.Conn, unknown *strangers) {
	defer conn.Close() //nolint:errcheck // nothing was written
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	id, err := readTether(conn)
	if !unknown.remove(conn) || err != nil {
		return
	}
	l := s.tie(id)
	if l == nil {
		s.deps.Log.Warn("tether of no link", zap.Stringer("address", conn.RemoteAddr()))
		return
	}
	defer context.AfterFunc(l.conn.Context(), func() { _ = conn.Close() })()
	_, _ = io.Copy(io.Discard, conn) // any end will do
	l.end(errTether)
}

func readTether(conn net.Conn) (string, error) {
	if err := conn.SetReadDeadline(time.Now().Add(tetherTimeout)); err != nil {
		return "", err
	}
	var line [tetherLine + 1]byte
	if _, err := io.ReadFull(conn, line[:]); err != nil {
		return "", err
	}
	if line[tetherLine] != '\n' {
		return "", errors.New("not a link's id")
	}
	return string(line[:tetherLine]), conn.SetReadDeadline(time.Time{})
}

// passing reports whether accepting may work again in a moment.
func passing(err error) bool {
	for _, number := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
