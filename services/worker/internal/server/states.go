package server

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	// maxCaptures bounds the copies of engines' states that are being compressed, maxHolds the checkpoints of others that
	// are being pulled: fewer than a Puller pulls at once, so that states for this worker's own streams come through.
	maxCaptures, maxHolds = 2, 2
	// captureTimeout is how long a copy waits for an engine that is in the middle of a token.
	captureTimeout = 5 * time.Second
	// pullTimeout bounds what a director that never gives up can cost.
	pullTimeout = 10 * time.Minute
	// retention is how long a snapshot is kept that nobody pulls, and a peer's checkpoint that nobody renews or
	// discards: its director is gone.
	retention = 10 * time.Minute
)

var errBusy = wire.Errorf(wire.CodeUnavailable, "the engine is in the middle of a token, and has been for %v", captureTimeout)

// StatesConfig bounds what a worker does with engines' states.
type StatesConfig struct {
	Label        string
	MaxState     int // bytes of one
	MaxSnapshots int // bytes of all snapshots and checkpoints, compressed
	TransferRate int // bytes per second that are sent
}

// States has the snapshots of engines' states that others may pull, the checkpoints that this worker keeps for others,
// and the migration tokens that it honours. It is safe for concurrent use.
type States struct {
	cfg       StatesConfig
	store     *transfer.Store
	puller    *transfer.Puller
	sender    *transfer.Server
	tokens    *token.Holder
	capturing chan struct{} // full while maxCaptures states are copied and compressed
	holding   chan struct{} // full while maxHolds checkpoints are pulled
}

// NewStates returns an empty States. Close gives back what it holds.
func NewStates(cfg StatesConfig, nw quicnet.Network, source identity.Source, log *zap.Logger) *States {
	s := &States{
		cfg: cfg, store: transfer.NewStore(cfg.MaxSnapshots), tokens: token.NewHolder(),
		capturing: make(chan struct{}, maxCaptures), holding: make(chan struct{}, maxHolds),
	}
	s.puller = transfer.NewPuller(transfer.PullerConfig{
		Network: nw, TLS: source, Name: cfg.Label, MaxState: cfg.MaxState, Log: log,
	})
	s.sender = &transfer.Server{
		Store: s.store, Limiter: rate.NewLimiter(rate.Limit(cfg.TransferRate), cfg.TransferRate), Log: log,
		Show: func(secret []byte, puller string) (*wirepb.Token, error) {
			return s.tokens.Show(secret, token.Want{
				Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER, Source: cfg.Label, Target: puller,
			})
		},
	}
	return s
}

// Serve answers a Pull on the MGMT port.
func (s *States) Serve(ctx context.Context, stream mgmt.Stream, ask *wirepb.Pull) error {
	if ask.GetFirstChunk() == 0 { // else its token has been used, and may be forgotten
		s.tokens.Await(ctx, ask.GetSecret())
	}
	return s.sender.Serve(ctx, stream, ask)
}

// Close drops all snapshots and checkpoints, and closes the connections to other nodes.
func (s *States) Close() {
	s.puller.Close()
	s.store.Close()
}

// forget gives up what is kept for a director whose process is gone.
func (s *States) forget(director string) { s.store.DropDirector(director) }

// Tokens returns the counts of this moment.
func (s *States) Tokens() token.Counts { return s.tokens.Counts() }

// Bytes is how many bytes of snapshots and checkpoints there are.
func (s *States) Bytes() int { return s.store.Bytes() }

// get returns the snapshot that a director tells of: from here if this worker keeps it, or else from where it is.
func (s *States) get(ctx context.Context, l *link, m *wirepb.Fetch) (*transfer.Snapshot, error) {
	if stored, ok := s.store.Get(l.key(m.GetSession(), true)); ok && stored.Sequence() == m.GetSequence() {
		return stored, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout(m))
	defer cancel()
	from := identity.Worker
	if m.GetAtDirector() {
		from = identity.Director
	}
	snapshot, err := s.puller.Pull(ctx, from, m)
	if refusal := new(wire.Error); err != nil && !errors.As(err, &refusal) { // nobody answers
		err = wire.Errorf(wire.CodeStateGone, "%v", err)
	}
	return snapshot, err
}

// fetchTimeout is how long a director wants a state to be tried for.
func fetchTimeout(m *wirepb.Fetch) time.Duration {
	return min(pullTimeout, time.Duration(min(m.GetTimeoutMs(), uint64(pullTimeout.Milliseconds())))*time.Millisecond)
}

// key is under which name a session's snapshot or checkpoint is stored: a director numbers its sessions itself.
func (l *link) key(session uint64, checkpoint bool) transfer.Key {
	return transfer.Key{Director: l.instance, Session: session, Checkpoint: checkpoint}
}

// pullToHold pulls a checkpoint, once less than maxHolds others are being pulled.
func (s *States) pullToHold(ctx context.Context, from *wirepb.Fetch) (*transfer.Snapshot, error) {
	select {
	case s.holding <- struct{}{}:
		defer func() { <-s.holding }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return s.puller.Pull(ctx, identity.Worker, from)
}

// admit checks the token of a standby.
func (l *link) admit(m *wirepb.Attach) error {
	if m.GetSession() == 0 || m.GetEpoch() == 0 { // any, for a holder of tokens
		return wire.Errorf(wire.CodeInvalid, "a standby for session %d in epoch %d", m.GetSession(), m.GetEpoch())
	}
	states := l.server.deps.States
	_, err := states.tokens.Show(m.GetSecret(), token.Want{
		Purpose: wirepb.Purpose_PURPOSE_MIGRATION, Director: l.instance, Session: m.GetSession(),
		Target: states.cfg.Label, Epoch: m.GetEpoch(),
	})
	return err
}

// migrate handles what planned swaps and checkpoints need. It reports false for what has no place on a control stream.
func (l *link) migrate(ctx context.Context, m wire.Message) bool {
	states := l.server.deps.States
	switch m := m.(type) {
	case *wirepb.Feed:
		l.order(m.GetSession(), m.GetEpoch(), m)
	case *wirepb.Fetch:
		l.order(m.GetSession(), m.GetEpoch(), m)
	case *wirepb.Pivot:
		l.order(m.GetRest().GetSession(), m.GetRest().GetEpoch(), m)
	case *wirepb.Capture:
		l.running.Go(func() { l.capture(ctx, m) })
	case *wirepb.Hold:
		l.running.Go(func() { l.hold(ctx, m) })
	case *wirepb.Discard:
		states.store.Drop(l.key(m.GetSession(), m.GetCheckpoint()))
	case *wirepb.Allow:
		if err := l.grants.Allow(m.GetToken()); err != nil {
			l.log.Warn("migration token", zap.Error(err), l.few())
		}
	case *wirepb.Revoke:
		l.grants.Revoke(m.GetSession(), m.GetEpoch())
		states.sender.Revoke(l.instance, m.GetSession())
	default:
		return false
	}
	return true
}

// order hands a standby what it has to do. One that has more to do than any director asks for at once is given up.
func (l *link) order(session, epoch uint64, m wire.Message) {
	a := l.find(session, epoch)
	if a == nil {
		return // cancelled meanwhile
	}
	orders := a.takesOrders()
	if orders == nil {
		return // it generates
	}
	select {
	case orders <- m:
	default:
		l.log.Warn("too many orders for a standby", zap.Uint64("session", session), l.few())
		a.stop()
		l.remove(a)
		l.refuse(session, epoch, wire.Errorf(wire.CodeProtocol, "more than %d orders at once", maxOrders))
	}
}

// takesOrders returns where to put them, or nil if the attempt does not stand by, or no more.
func (a *attempt) takesOrders() chan<- any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.orders
}

// capture makes a snapshot of a session's engine, for others to pull.
func (l *link) capture(ctx context.Context, m *wirepb.Capture) {
	answer := &wirepb.Captured{Session: m.GetSession(), Epoch: m.GetEpoch(), Capture: m.GetCapture()}
	snapshot, err := l.snapshot(ctx, m)
	if err != nil {
		answer.Code, answer.Message = inWords(err, wire.CodeEngine)
	} else {
		answer.Sequence, answer.Size = snapshot.Sequence(), uint64(snapshot.Size())
	}
	l.control.Send(answer)
}

// snapshot copies and compresses the engine's state, and stores it for others to pull.
func (l *link) snapshot(ctx context.Context, m *wirepb.Capture) (*transfer.Snapshot, error) {
	states := l.server.deps.States
	select {
	case states.capturing <- struct{}{}:
		defer func() { <-states.capturing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	a := l.find(m.GetSession(), m.GetEpoch())
	if a == nil {
		return nil, wire.Errorf(wire.CodeStaleEpoch, "session %d is not served in epoch %d", m.GetSession(), m.GetEpoch())
	}
	sequence, state, err := a.copyState(ctx, m.GetCapture())
	if err != nil {
		return nil, err
	}
	if len(state) > states.cfg.MaxState {
		return nil, wire.Errorf(wire.CodeLimit, "a state of %d bytes, allowed are %d (CONNECTION_SWAP_MAX_STATE_BYTES)",
			len(state), states.cfg.MaxState)
	}
	snapshot, err := transfer.Compress(sequence, state)
	if err != nil {
		return nil, err
	}
	return snapshot, a.offer(m, snapshot)
}

// inWords is how a director is told why there is no snapshot.
func inWords(err error, otherwise wire.Code) (code, message string) {
	if errors.Is(err, transfer.ErrFull) {
		err = wire.Errorf(wire.CodeCapacity, "%v (CONNECTION_SWAP_WORKER_MAX_SNAPSHOT_BYTES)", err)
	}
	e := wire.AsError(err, otherwise)
	return string(e.Code), wire.Text(e.Message)
}

// copyState returns the engine's state after the token of that sequence. The generation waits for one copy.
func (a *attempt) copyState(ctx context.Context, number uint64) (sequence uint64, state []byte, err error) {
	a.mu.Lock()
	c := a.capturer
	a.captures = max(a.captures, number)
	a.mu.Unlock()
	if c == nil {
		return 0, nil, wire.Errorf(wire.CodeUnavailable, "there is no state yet, or none at all")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, captureTimeout, errBusy)
	defer cancel()
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	}
	a.mu.Lock()
	closed := a.capturer == nil
	a.mu.Unlock()
	if closed {
		return 0, nil, wire.Errorf(wire.CodeStaleEpoch, "the session has ended here")
	}
	defer func() {
		if p := recover(); p != nil { // as in generate
			a.log.Error("engine panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()), a.link.few())
			err = fmt.Errorf("engine panicked: %v", p)
		}
	}()
	state, err = c.Capture(nil)
	return a.position, state, err
}

// offer lets others pull the snapshot, unless a newer one was asked for meanwhile.
func (a *attempt) offer(m *wirepb.Capture, snapshot *transfer.Snapshot) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || m.GetCapture() < a.captures {
		return wire.Errorf(wire.CodeStaleEpoch, "a newer snapshot was asked for, or none is needed any more")
	}
	ttl := retention
	if ms := m.GetKeepMs(); 0 < ms && ms < uint64(ttl.Milliseconds()) {
		ttl = time.Duration(ms) * time.Millisecond
	}
	return a.link.server.deps.States.store.Put(a.link.key(a.session, false), snapshot, ttl)
}

// hold keeps another worker's checkpoint.
func (l *link) hold(ctx context.Context, m *wirepb.Hold) {
	states, from := l.server.deps.States, m.GetFrom()
	answer := &wirepb.Held{Session: from.GetSession(), SourceEpoch: m.GetSourceEpoch()}
	pulling, cancel := context.WithTimeout(ctx, fetchTimeout(from))
	defer cancel()
	snapshot, err := states.pullToHold(pulling, from)
	if err == nil {
		err = states.store.Put(l.key(from.GetSession(), true), snapshot, retention)
	}
	if err != nil {
		answer.Code, answer.Message = inWords(err, wire.CodeStateGone)
	} else {
		answer.Sequence = snapshot.Sequence()
	}
	l.control.Send(answer)
}
