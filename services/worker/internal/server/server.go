// Package server is the worker's end of the link protocol (see package wire): it takes sessions from
// directors and sends them tokens.
//
// A Server has the links, a link has the attempts of its director's sessions, and an attempt the generation of one session.
// The goroutine of serveLink owns its link, and ends only after every goroutine of the link; the goroutine of attempt.run owns
// its attempt. What waits for a director is in the queues of its link, which are bounded in bytes.
//
// Locks are taken in the order link, attempt, server, and none is held while anything blocks.
package server

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Config says who the worker is.
type Config struct {
	Label    string
	Instance string
	Capacity int   // sessions at once, over all links
	MaxBytes int64 // of prompts and tokens that directors have sent, over all links
	Versions wire.Versions
}

// Deps are what a Server works with.
type Deps struct {
	Models []Model // at least one; the first serves who names none
	States *States
	Log    *zap.Logger
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

	mu       sync.Mutex    // guards all below
	reason   string        // why no session is taken now; empty if they are
	stopping chan struct{} // not nil once the worker is to stop; closed when it has no session left
	sessions int
	perModel map[*Model]int
	bytes    int64 // that they hold
	links    map[*link]struct{}
	drained  string // id of the director whose operator has taken this worker out of use; empty if none has
}

// New returns a Server that takes sessions.
func New(cfg Config, deps Deps) *Server {
	return &Server{cfg: cfg, deps: deps, links: make(map[*link]struct{}), perModel: map[*Model]int{}}
}

// Load is how busy a Server is.
type Load struct {
	Available bool
	Reason    string // why not
	Sessions  int
	Bytes     int64 // that they hold
}

// Load returns the load of this moment.
func (s *Server) Load() Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason := s.unavailable()
	return Load{Available: reason == "", Reason: reason, Sessions: s.sessions, Bytes: s.bytes}
}

// unavailable says why no session is taken now, or nothing. s.mu is held.
func (s *Server) unavailable() string {
	if s.stopping != nil {
		return shuttingDown
	}
	return s.reason
}

const shuttingDown = "shutting down"

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

// Fail makes the server refuse sessions, drops those that it has, and tells the directors why.
func (s *Server) Fail(reason string) {
	for _, l := range s.setReason(reason) {
		l.stopAttempts()
		l.control.Send(&wirepb.WorkerStatus{Failed: true, Reason: wire.Text(reason)})
	}
}

// Recover makes the server take sessions again, unless the worker is to stop. The directors are told under the lock, so that
// no Drain can be told before.
func (s *Server) Recover() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = ""
	if s.stopping != nil {
		return
	}
	for l := range s.links {
		l.control.Send(&wirepb.WorkerStatus{Available: true})
	}
}

// Drain takes no more sessions, asks the directors to move those that it has, and waits until they are gone; or until
// the time is up, or ctx ends.
func (s *Server) Drain(ctx context.Context, timeout time.Duration) {
	s.mu.Lock()
	empty := make(chan struct{})
	s.stopping = empty
	sessions, links := s.sessions, s.allLinks()
	if sessions == 0 {
		close(empty)
	}
	s.mu.Unlock()
	s.deps.Log.Info("draining", zap.Int("sessions", sessions), zap.Duration("timeout", timeout))
	for _, l := range links {
		l.control.Send(&wirepb.WorkerStatus{Draining: true, Reason: shuttingDown})
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-empty:
		s.deps.Log.Info("drained")
	case <-timer.C:
		s.deps.Log.Warn("not drained in time; the streams left are lost to other workers", zap.Int("sessions", s.Load().Sessions))
	case <-ctx.Done():
	}
}

// setReason changes the readiness and returns the links to be told.
func (s *Server) setReason(reason string) []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = reason
	return s.allLinks()
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
	s.Fail(shuttingDown)
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
		older.stopAttempts()
		s.removeLink(older)
	}
}

// admit adds and welcomes l, or returns an older link of the same director. Both under the lock: what happens to
// the worker is either in the welcome or follows it.
func (s *Server) admit(l *link) (older *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.links {
		if other.instance == l.instance {
			return other
		}
	}
	s.links[l] = struct{}{}
	l.control.Send(&wirepb.LinkWelcome{Worker: s.cfg.Label, Instance: s.cfg.Instance, Available: s.unavailable() == ""})
	return nil
}

// removeLink takes a link out that has ended, or is to end for a newer one.
func (s *Server) removeLink(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	if l.superseded {
		s.deps.States.forget(l.instance)
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
	s.deps.States.forget(instance)
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

// reserve takes a place for a session, and the memory for what it begins with, or says why there is none.
func (s *Server) reserve(m *Model, bytes int) *wire.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch reason := s.unavailable(); {
	case reason != "":
		return wire.Errorf(wire.CodeUnavailable, "%s", reason)
	case s.sessions >= s.cfg.Capacity:
		return wire.Errorf(wire.CodeCapacity, "all %d places are taken", s.cfg.Capacity)
	case m.Capacity > 0 && s.perModel[m] >= m.Capacity:
		return wire.Errorf(wire.CodeCapacity, "all %d places of model %s are taken", m.Capacity, m.Name())
	}
	if refusal := s.take(bytes); refusal != nil {
		return refusal
	}
	s.sessions++
	s.perModel[m]++
	return nil
}

// grow takes memory for a session that has its place, or says why there is none.
func (s *Server) grow(bytes int) *wire.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(bytes)
}

// take takes memory. s.mu is held.
func (s *Server) take(bytes int) *wire.Error {
	if s.bytes+int64(bytes) > s.cfg.MaxBytes {
		return wire.Errorf(wire.CodeCapacity, "no room for %d bytes more: of %d in all (CONNECTION_SWAP_WORKER_MAX_BYTES) %d are taken",
			bytes, s.cfg.MaxBytes, s.bytes)
	}
	s.bytes += int64(bytes)
	return nil
}

// release gives a place back, and the memory of its session.
func (s *Server) release(m *Model, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions--
	s.perModel[m]--
	s.bytes -= int64(bytes)
	if s.sessions == 0 && s.stopping != nil {
		close(s.stopping) // once: no session begins any more
	}
}

// Sessions lists what the server is working on, in the order of connection and stream.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	links := s.allLinks()
	s.mu.Unlock()
	var all []Session
	for _, l := range links {
		all = append(all, l.list()...)
	}
	slices.SortFunc(all, Session.compare)
	return all
}
