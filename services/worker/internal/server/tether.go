package server

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	tetherLine    = 16 // hex digits, followed by a newline
	tetherTimeout = 5 * time.Second
	tetherPause   = 100 * time.Millisecond
	maxTethers    = 256 // at once; there is one for each director
)

// acceptTethers holds TCP connections. All that counts about one is that it ends when its director dies.
func (s *Server) acceptTethers(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	places := make(chan struct{}, maxTethers)
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
		select {
		case places <- struct{}{}:
		default:
			_ = conn.Close() // nobody has this many directors
			continue
		}
		running.Go(func() {
			s.holdTether(ctx, conn)
			<-places
		})
	}
}

// holdTether reads the link's id and then waits for the end; with it the link ends, and the other way round.
func (s *Server) holdTether(ctx context.Context, conn net.Conn) {
	defer conn.Close() //nolint:errcheck // nothing was written
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	id, err := readTether(conn)
	if err != nil {
		return
	}
	l := s.tethered(id)
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
