package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	tetherLine    = 16 // hex digits, before the newline
	tetherTimeout = 5 * time.Second
	maxTethers    = 256 // at once; there is one for each director
)

// acceptTethers holds TCP connections. All that counts about one is that it ends when its director dies.
func (s *Server) acceptTethers(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	places := make(chan struct{}, maxTethers)
	for {
		conn, err := l.Accept()
		if err != nil {
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
	line, err := bufio.NewReader(io.LimitReader(conn, tetherLine+1)).ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(line, "\n"), conn.SetReadDeadline(time.Time{})
}
