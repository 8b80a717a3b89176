package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Link is the standing connection to one instance of one worker. It carries all its sessions.
type Link struct {
	pool    *Pool
	worker  *Worker
	log     *zap.Logger
	control *wire.Outbox
	tether  string // what ties the tether to this link

	conn *quicnet.Conn // set before the link is up
	lose context.CancelCauseFunc

	silence  silence       // owned by the pool's watch
	incoming [3]int        // swaps under way to this worker, by migration.Kind; guarded by Pool.mu
	fenced   atomic.Uint64 // tokens of sessions that had left

	mu       sync.Mutex
	up       bool
	ready    bool // the worker takes new sessions
	rested   bool // false for a moment after the worker declined one
	resting  *time.Timer
	attempts map[uint64]attempt
	holding  map[uint64]Placed // sessions whose checkpoint this worker was asked to keep, until it answers
	progress uint64            // reports so far
}

// attempt is one session on one worker.
type attempt struct {
	session Placed
	wish    *Waiter // that it was granted for
}

// lostError carries the cause through a context.
type lostError struct {
	cause Cause
	err   error
}

func (e *lostError) Error() string {
	if e.err == nil {
		return string(e.cause)
	}
	return fmt.Sprintf("%s: %v", e.cause, e.err)
}

func (e *lostError) Unwrap() error { return e.err }

func lost(cause Cause, err error) error { return &lostError{cause: cause, err: err} }

// restTime is how long a worker that declined a session gets no other. It is short because the usual reason, a
// status that crossed with the attempt, is over at once.
const restTime = 250 * time.Millisecond

// tokenStreams is how many streams a worker spreads its tokens over, so that one lost packet does not hold up
// all sessions.
const tokenStreams = 4

func newLink(p *Pool, w *Worker) *Link {
	return &Link{
		pool: p, worker: w, log: p.log.With(zap.String("worker", w.Label)), control: wire.NewOutbox(),
		tether: NewID(), attempts: map[uint64]attempt{}, holding: map[uint64]Placed{}, rested: true,
	}
}

// run brings the link up and holds it until it is lost or ctx ends. It reports whether the link was up, and
// returns when nothing of it runs any more.
func (l *Link) run(ctx context.Context) (up bool, err error) {
	ctx, l.lose = context.WithCancelCause(ctx)
	defer l.lose(nil)
	control, frames, err := l.dial(ctx)
	if err != nil {
		return false, err
	}
	var running sync.WaitGroup
	running.Go(func() { l.lose(l.classify(l.control.Run(ctx, control))) })
	running.Go(func() { l.lose(l.classify(l.readControl(frames))) })
	running.Go(func() { l.lose(l.classify(l.acceptTokens(ctx, &running))) })
	running.Go(func() { l.lose(l.holdTether(ctx)) })
	l.setUp()
	l.log.Info("worker connected", zap.String("address", l.worker.UserAddr))

	<-ctx.Done()
	err = context.Cause(ctx)
	l.down(err)
	code := wire.QUICLost
	if causeOf(err) == CauseShutdown {
		code = wire.QUICShutdown
	}
	_ = l.conn.Close(code, wire.Text(err.Error()))
	running.Wait()
	return true, err
}

// dial connects and greets. A worker that accepts the connection but does not greet is one that hangs.
func (l *Link) dial(ctx context.Context) (*quic.Stream, *wire.Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*l.pool.cfg.ProgressTimeout)
	defer cancel()
	tlsConf := identity.ClientTLS(l.pool.deps.TLS, wire.ALPNLink, identity.Worker)
	conn, err := quicnet.Dial(ctx, l.pool.deps.Network, l.worker.UserAddr, tlsConf, quicnet.LinkConfig(l.pool.cfg.KeepAlive))
	if err != nil {
		return nil, nil, fmt.Errorf("dialling %s: %w", l.worker.UserAddr, err)
	}
	l.conn = conn
	stream, frames, err := l.greet(ctx)
	if err != nil {
		_ = conn.Close(wire.QUICProtocol, wire.Text(err.Error()))
		return nil, nil, fmt.Errorf("greeting %s: %w", l.worker.UserAddr, err)
	}
	return stream, frames, nil
}

func (l *Link) greet(ctx context.Context) (*quic.Stream, *wire.Reader, error) {
	stream, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := stream.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	hello := &wirepb.LinkHello{
		Version: l.worker.Version, DirectorId: l.pool.cfg.DirectorID, TokenStreams: tokenStreams, Tether: l.tether,
		ProgressIntervalMs: uint32(max(1, l.pool.cfg.KeepAlive.Milliseconds())), DirectorInstance: l.pool.cfg.Instance,
	}
	if _, err := stream.Write(wire.Append(nil, hello)); err != nil {
		return nil, nil, err
	}
	frames := wire.NewReader(stream, wire.MaxControl)
	welcome, err := wire.ReadMessage[*wirepb.LinkWelcome](frames)
	if err != nil {
		return nil, nil, err
	}
	if welcome.GetInstance() != l.worker.Instance {
		return nil, nil, wire.Errorf(wire.CodeSuperseded, "instance %s answers as %q, expected was %s",
			welcome.GetInstance(), welcome.GetWorker(), l.worker.Instance)
	}
	l.mu.Lock()
	l.ready = welcome.GetAvailable()
	l.mu.Unlock()
	return stream, frames, stream.SetDeadline(time.Time{})
}

// setUp opens the link for sessions.
func (l *Link) setUp() {
	l.mu.Lock()
	l.up = true
	l.mu.Unlock()
	l.pool.linkUp(l)
}

// down takes the link out and its sessions away.
func (l *Link) down(err error) {
	l.mu.Lock()
	l.up = false
	if l.resting != nil {
		l.resting.Stop()
	}
	orphans := l.take()
	l.mu.Unlock()
	l.pool.linkDown(l)
	cause := causeOf(err)
	level := zap.WarnLevel
	if cause == CauseShutdown {
		level = zap.InfoLevel
	}
	l.log.Log(level, "worker lost", zap.String("cause", string(cause)), zap.Int("sessions", len(orphans)), zap.Error(err))
	l.pool.orphan(orphans, cause)
}

// take removes all attempts and returns them, oldest session first. l.mu is held.
func (l *Link) take() []attempt {
	all := make([]attempt, 0, len(l.attempts))
	for _, a := range l.attempts {
		all = append(all, a)
	}
	clear(l.attempts)
	slices.SortFunc(all, func(a, b attempt) int { return cmp.Compare(a.wish.ID, b.wish.ID) })
	return all
}

// causeOf finds the cause in what ended a link.
func causeOf(err error) Cause {
	var l *lostError
	switch {
	case errors.As(err, &l):
		return l.cause
	case errors.Is(err, errReplaced):
		return CauseReplaced
	case errors.Is(err, errShutdown):
		return CauseShutdown
	case errors.Is(err, errGone):
		return CauseClosed
	}
	return CauseBroken
}

// classify says what an error of the link's streams means.
func (l *Link) classify(err error) error {
	var already *lostError
	var app *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	switch {
	case err == nil || errors.As(err, &already):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return lost(CauseRefused, err)
	case errors.As(err, &app) && app.Remote:
		return lost(CauseClosed, err)
	case errors.As(err, &idle):
		return lost(CauseIdle, err)
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge), errors.Is(err, wire.ErrUnknownType), errors.Is(err, wire.ErrUnexpected):
		return lost(CauseProtocol, err)
	}
	return lost(CauseBroken, err)
}

// room reports whether the worker would take one session more.
func (l *Link) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up && l.ready && l.rested && len(l.attempts) < l.worker.Capacity
}

// Up reports whether the worker can be reached, as far as is known.
func (l *Link) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

func (l *Link) available() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up && l.ready
}

// add reserves a place for w.
func (l *Link) add(w *Waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up || !l.ready || len(l.attempts) >= l.worker.Capacity {
		return false
	}
	l.attempts[w.ID] = attempt{session: w.Session, wish: w}
	return true
}

// remove frees the place that was granted to w, if it is still held.
func (l *Link) remove(w *Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attempts[w.ID].wish == w {
		delete(l.attempts, w.ID)
	}
}

// rest lets a worker that declined a session alone for a moment.
func (l *Link) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rested = false
	if l.resting != nil {
		l.resting.Reset(restTime)
		return
	}
	l.resting = time.AfterFunc(restTime, func() {
		l.mu.Lock()
		l.rested = true
		l.mu.Unlock()
		l.pool.changed()
	})
}

// Worker returns the label of the worker behind the link.
func (l *Link) Worker() string { return l.worker.Label }

// Fingerprint returns that of the worker's engine.
func (l *Link) Fingerprint() string { return l.worker.Fingerprint }

// Stateful reports whether the worker's engine has a state that moves with a session.
func (l *Link) Stateful() bool { return l.worker.Stateful }

// MgmtAddr is where the worker's MGMT port is.
func (l *Link) MgmtAddr() string { return l.worker.MgmtAddr }

// LocalAddr is the address of this end of the link, "ip:port".
func (l *Link) LocalAddr() string { return l.conn.LocalAddr().String() }

// Send sends a message on the control stream, such as those for standbys. Attach, Cancel and Grant have their own.
func (l *Link) Send(m wire.Message) { l.control.Send(m) }

// Attach gives a session to the worker. The answers come to the session's Sink.
func (l *Link) Attach(m *wirepb.Attach) { l.control.Send(m) }

// Hold asks the worker to keep a session's checkpoint. The answer comes to s, unless the link is lost before.
func (l *Link) Hold(s Placed, m *wirepb.Hold) {
	l.mu.Lock()
	l.holding[m.GetFrom().GetSession()] = s
	l.mu.Unlock()
	l.control.Send(m)
}

// Discard lets the worker forget the checkpoint that it keeps of a session. An answer to Hold is not waited for any more.
func (l *Link) Discard(session uint64) {
	l.mu.Lock()
	delete(l.holding, session)
	l.mu.Unlock()
	l.control.Send(&wirepb.Discard{Session: session, Checkpoint: true})
}

// held passes the answer to Hold on.
func (l *Link) held(m *wirepb.Held) {
	l.mu.Lock()
	s := l.holding[m.GetSession()]
	delete(l.holding, m.GetSession())
	l.mu.Unlock()
	if s != nil {
		s.Held(m)
	}
}

// Cancel takes a session back from the worker, for one epoch. It does not free its place; see Pool.Release.
func (l *Link) Cancel(id, epoch uint64) { l.control.Send(&wirepb.Cancel{Session: id, Epoch: epoch}) }

// Grant lets the worker send more.
func (l *Link) Grant(grants ...*wirepb.Credit_Grant) {
	l.control.Send(&wirepb.Credit{Grants: grants})
}
