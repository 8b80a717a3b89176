package quicnet

import (
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// What client and director make of each other's silence while a stream is open, by default.
const (
	ClientKeepAlive   = 2 * time.Second
	ClientIdleTimeout = 6 * time.Second
)

// looks is how often a Watch looks within its limit, so that it is late by an eighth of that at most.
const looks = 8

// Watch notices that nothing comes from the peer any more while something is under way on a connection. quic-go has one
// idle timeout for a connection's whole life, and takes it from the wall clock: a short one would also end connections
// that nobody uses now, and those of a process that was itself stopped for a while. A Watch counts its own looks instead,
// of which a process that is stopped has none.
//
// It is safe for concurrent use. It owns no goroutine, but a timer while something is under way.
type Watch struct {
	conn  *quic.Conn
	limit time.Duration
	lost  func()

	mu      sync.Mutex
	uses    int         // what is under way
	timer   *time.Timer // nil before the first use
	packets uint64      // that had come at the last look
	silent  int         // looks since then that found no more
}

// NewWatch returns a Watch that calls lost, once, when nothing has come for limit; with limit 0 it never does. The peer, or
// this side, has to send keep-alives more often than that.
func NewWatch(conn *quic.Conn, limit time.Duration, lost func()) *Watch {
	return &Watch{conn: conn, limit: limit, lost: lost}
}

// Begin says that something is under way, until end is called, which has to be done once.
func (w *Watch) Begin() (end func()) {
	if w.limit <= 0 {
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.uses++
	if w.uses == 1 {
		w.packets, w.silent = w.conn.ConnectionStats().PacketsReceived, 0
		if w.timer == nil {
			w.timer = time.AfterFunc(w.limit/looks, w.look)
		} else {
			w.timer.Reset(w.limit / looks)
		}
	}
	return w.end
}

func (w *Watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.uses--; w.uses == 0 {
		w.timer.Stop()
	}
}

func (w *Watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.uses == 0 || w.conn.Context().Err() != nil {
		return
	}
	if packets := w.conn.ConnectionStats().PacketsReceived; packets != w.packets {
		w.packets, w.silent = packets, 0
	} else {
		w.silent++
	}
	if w.silent >= looks {
		w.lost()
		return
	}
	w.timer.Reset(w.limit / looks)
}
