// Package link is the worker's end of the link protocol (see package wire): it serves the sessions of a worker to directors.
//
// A Server has the links; a link has its director's names for the sessions that it serves, and the queues of what waits for that director,
// which are bounded in bytes. The goroutine of serveLink owns its link, and ends only after every goroutine of the link.
//
// Locks are taken in the order of link, session and table, or of Server and table, and none is held while anything blocks.
package link

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/services/worker/internal/state"
	"github.com/connswap/connswap/shared/wire"
)

// Config says who the worker is.
type Config struct {
	Label    string
	Instance string
	Versions wire.Versions
}

// Deps are what a Server works with.
type Deps struct {
	Sessions *session.Table
	States   *state.Keeper
	Log      *zap.Logger
	// LinkEnded is told that the link of a director's process has ended, and was not replaced. It must not block.
	LinkEnded func(instance string)
}

// farewellTimeout bounds how long a shutdown waits for directors to read the last frames.
const farewellTimeout = time.Second

// Server holds the links and counts the sessions. It is safe for concurrent use.
type Server struct {
	cfg      Config
	deps     Deps
	counters counters

	mu      sync.Mutex // guards all below; that of the sessions' table may be taken while it is held
	links   map[*link]struct{}
	drained string // id of the director whose operator has taken this worker out of use; empty if none has
}

// New returns a Server without links.
func New(cfg Config, deps Deps) *Server {
	return &Server{cfg: cfg, deps: deps, links: make(map[*link]struct{})}
}

// Serve serves links and their tethers until ctx ends, then tells the directors, and closes both listeners.
// When it returns no session, no link and no goroutine of it is left.
func (s *Server) Serve(ctx context.Context, l Listener, tethers net.Listener) error {
	// Links outlive ctx for as long as it takes to tell their directors.
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	failed := make(chan error, 2)
	running.Go(func() { failed <- s.acceptLinks(serving, l, &running) })
	running.Go(func() { failed <- s.acceptTethers(serving, tethers, &running) })

	var err error
	select {
	case <-ctx.Done():
		s.sayGoodbye(serving)
	case err = <-failed:
	}
	stop(errShutdown)
	err = errors.Join(err, tethers.Close())
	running.Wait() // the links say goodbye while the socket is still there
	return errors.Join(err, l.Close())
}

// acceptLinks serves each connection on a goroutine of its own, until the listener fails or ctx ends.
func (s *Server) acceptLinks(ctx context.Context, l Listener, running *sync.WaitGroup) error {
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		running.Go(func() { s.serveLink(ctx, conn) })
	}
}

// allLinks returns a copy of the links. s.mu is held.
func (s *Server) allLinks() []*link {
	links := make([]*link, 0, len(s.links))
	for l := range s.links {
		links = append(links, l)
	}
	return links
}

// sayGoodbye fails all sessions and waits, for a moment, until the directors have read that.
func (s *Server) sayGoodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, farewellTimeout)
	defer cancel()
	s.deps.Sessions.Fail(session.ShuttingDown)
	s.mu.Lock()
	links := s.allLinks()
	s.mu.Unlock()
	var flushing sync.WaitGroup
	for _, l := range links {
		flushing.Go(func() { l.flush(ctx) })
	}
	flushing.Wait()
}

// addLink adds a link that has been greeted, and welcomes it. A director has one link: where it lost the older one,
// this worker may not know that yet, and its sessions are on their way elsewhere. They end first, so that their
// places are free.
func (s *Server) addLink(l *link) {
	for {
		older := s.admit(l)
		if older == nil {
			return
		}
		older.end(errReplaced)
		older.stopSessions()
		s.removeLink(older)
	}
}

// admit adds and welcomes l, or returns an older link of the same director.
func (s *Server) admit(l *link) (older *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.links {
		if other.instance == l.instance {
			return other
		}
	}
	s.links[l] = struct{}{}
	l.leave = s.deps.Sessions.Join(l.tell)
	return nil
}

// removeLink takes a link out that has ended, or is to end for a newer one.
func (s *Server) removeLink(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.links[l]; !there {
		return
	}
	delete(s.links, l)
	l.leave()
	if l.superseded {
		s.deps.States.Forget(l.instance)
	}
}

// Forget gives up what is kept for a director's process, which another one has followed: at once, or with its link.
// Whatever belongs to a process of which nobody says so ends with its time.
func (s *Server) Forget(instance string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		if l.instance == instance {
			l.superseded = true
			return
		}
	}
	s.deps.States.Forget(instance)
}

// crowded reports whether there are as many links as there may be.
func (s *Server) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links) >= maxLinks
}

// bindTether returns the link with the given tether id, once: a link has one tether.
func (s *Server) bindTether(id string) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		if l.tether == id && !l.hasTether {
			l.hasTether = true
			return l
		}
	}
	return nil
}
