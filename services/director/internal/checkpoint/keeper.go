// Package checkpoint keeps the states of stateful engines for the case that their worker dies: when they are taken,
// where they are kept, and where the next worker finds the newest. It is told which attempt serves a stream, where that
// was cut off, and when the stream has gone; nothing else in a director knows that there are checkpoints.
package checkpoint

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Store keeps engines' states in this director.
type Store interface {
	// Fetch gets a stream's state and keeps it, in place of an older one. It returns at once; done is called once,
	// from another goroutine, with the token after which the state was taken. What it returns gives that up.
	Fetch(from *wirepb.Fetch, done func(sequence uint64, err error)) (cancel func())
	// Addr returns where the worker behind a link can get it, "host:port", and who keeps it.
	Addr(l *link.Link) (addr, keeper string)
	// Allow lets whoever shows the token's secret get the state of its stream.
	Allow(t *wirepb.Token) error
	// Drop forgets a stream's state.
	Drop(stream uint64)
}

// Config says how often checkpoints are made, and where they are kept.
type Config struct {
	Interval        time.Duration // between two of a stream; 0 for none
	TransferTimeout time.Duration // of an engine's state
	AtPeer          bool          // kept by another worker, not by this director
}

// Deps is what a Keeper needs from outside.
type Deps struct {
	Store   Store
	Limiter *Limiter
	Peer    func(label string) *link.Link // a worker other than the one named that can store states; nil for none
	Clock   *clock.StallProof
	Log     *zap.Logger
}

// Keeper makes the checkpoints of one stream, and knows where the newest is. The goroutine that owns the stream owns
// it: whatever comes from another goroutine goes through post.
type Keeper struct {
	*attempt.Stream
	cfg  Config
	deps Deps
	post func(func()) bool // has the owner call a function; false if there is no owner any more

	serving *attempt.Attempt // whose state is kept; nil while there is none
	paused  bool             // by a handover that leaves it

	// The newest checkpoint.
	epoch    uint64     // of the attempt whose state it was; 0 if there is none
	sequence uint64     // the state is that after this token
	peer     *link.Link // of the worker that keeps it; nil if the director does

	// The one under way.
	requests uint64        // for the engine's state made so far, for handovers too
	slot     *Slot         // that it waits for, or has; nil if no checkpoint is due
	asked    uint64        // number of its request; 0 if none is under way
	source   uint64        // epoch of the attempt that was asked
	since    time.Duration // stall-proof time of that request
	place    *link.Link    // where it goes; nil for the director
	cancel   func()        // ends the transfer to the director
	out      uint64        // number of the request whose token may still be used; 0 if there is none
	failures int           // in a row, of the same worker
}

// NewKeeper returns a Keeper of a stream that nobody serves yet.
func NewKeeper(s *attempt.Stream, cfg Config, deps Deps, post func(func()) bool) *Keeper {
	return &Keeper{Stream: s, cfg: cfg, deps: deps, post: post}
}

// Serving says which attempt serves the stream, and that no handover leaves it.
func (k *Keeper) Serving(a *attempt.Attempt) { k.serving, k.paused = a, false }

// Pause says that a handover is about to leave the serving attempt. A checkpoint under way is given up, and its token
// taken back: whoever pulls with it, late, would get what the handover has captured meanwhile, and use that up. Tokens
// after it lead to a later epoch.
func (k *Keeper) Pause() {
	k.paused = true
	if k.asked == 0 && k.out == 0 {
		return
	}
	if k.serving != nil && k.source == k.serving.Epoch { // else the worker that would honour the token has been left
		k.serving.Link.Send(&wirepb.Revoke{Session: k.ID, Epoch: k.NextEpoch()})
	}
	k.out = 0
	k.stop()
}

// Cut says that the serving attempt has been left, and that its tokens count up to a sequence. A checkpoint beyond it
// is forgotten: what the worker made after it is no part of the stream.
func (k *Keeper) Cut(sequence uint64) {
	k.serving = nil
	if k.sequence > sequence {
		k.epoch = 0
	}
}

// Gone gives back all that is kept: the stream is over.
func (k *Keeper) Gone() {
	k.Stop()
	if k.requests > 0 {
		k.deps.Store.Drop(k.ID)
	}
	for _, keeper := range []*link.Link{k.peer, k.place} {
		if keeper != nil {
			keeper.Discard(k.ID)
		}
	}
	k.peer, k.place = nil, nil
}

// Stop makes no more checkpoints; the newest stays.
func (k *Keeper) Stop() {
	k.serving = nil
	k.stop()
}

// stop ends the checkpoint that is under way, if there is one, and gives its slot back.
func (k *Keeper) stop() {
	k.asked = 0
	if k.cancel != nil {
		k.cancel()
		k.cancel = nil
	}
	if k.slot != nil {
		k.slot.End()
		k.slot = nil
	}
}

// Request asks the worker of an attempt for a snapshot of the engine's state, to be kept for a time, and returns the
// request's number.
func (k *Keeper) Request(a *attempt.Attempt) uint64 {
	k.requests++
	a.Link.Send(&wirepb.Capture{
		Session: k.ID, Epoch: a.Epoch, Capture: k.requests, KeepMs: uint64(k.cfg.TransferTimeout.Milliseconds()),
	})
	return k.requests
}

// Forget lets the worker of an attempt forget what it captured of the engine's state.
func (k *Keeper) Forget(a *attempt.Attempt) {
	if a.Stateful() {
		a.Link.Send(&wirepb.Discard{Session: k.ID})
	}
}

// Check asks for a slot when the next checkpoint is due. One under way that takes longer than a transfer may is given
// up. The owner of the stream calls it now and then.
func (k *Keeper) Check() {
	switch since := k.deps.Clock.Since(k.since); {
	case k.asked != 0 && (k.serving == nil || k.source != k.serving.Epoch):
		k.stop() // the worker that was asked has been left
	case k.asked != 0 && k.place != nil && !k.place.Up():
		k.fail(wire.Errorf(wire.CodeLost, "the peer is gone"))
	case k.asked != 0 && since >= k.cfg.TransferTimeout:
		k.fail(wire.Errorf(wire.CodeUnavailable, "it took more than %v", k.cfg.TransferTimeout))
	case k.asked != 0 && since >= SlotTimeout:
		k.slot.End()
	case k.slot == nil && k.possible() && since >= k.wait():
		k.slot = k.deps.Limiter.Ask(k.serving.Link.Worker(), func(t *Slot) { k.post(func() { k.begin(t) }) })
	}
}

// Idle reports whether Check has nothing to do: no checkpoint is under way, and none becomes due by itself.
func (k *Keeper) Idle() bool { return k.asked == 0 && k.slot == nil && !k.possible() }

// mostDoublings bounds how much rarer checkpoints become where they fail: each has cost a transfer, maybe for nothing.
const mostDoublings = 6

// wait is how long to wait after the last one.
func (k *Keeper) wait() time.Duration {
	if k.source != k.serving.Epoch {
		return k.cfg.Interval
	}
	return k.cfg.Interval << min(k.failures, mostDoublings)
}

// possible reports whether a checkpoint can be made now.
func (k *Keeper) possible() bool {
	return k.cfg.Interval > 0 && k.serving != nil && !k.paused && k.serving.Stateful()
}

// begin begins a checkpoint, which has got its slot.
func (k *Keeper) begin(slot *Slot) {
	switch {
	case slot != k.slot: // that checkpoint was given up
	case !k.possible() || slot.label != k.serving.Link.Worker(): // the slot is at the worker that the stream has left
		k.stop()
	default:
		if k.source != k.serving.Epoch {
			k.failures = 0
		}
		if k.place != nil && !k.place.Up() {
			k.place = nil // what it keeps is lost; this one goes elsewhere
		}
		k.since, k.source = k.deps.Clock.Now(), k.serving.Epoch
		k.asked = k.Request(k.serving)
	}
}

// Captured takes a worker's answer to a request. It is nothing to the keeper if it was made for a handover.
func (k *Keeper) Captured(a *attempt.Attempt, m *wirepb.Captured) {
	switch {
	case a != k.serving || k.asked == 0 || k.asked != m.GetCapture():
	case m.GetCode() != "":
		k.fail(wire.Errorf(wire.Code(m.GetCode()), "%s", m.GetMessage()))
	default:
		k.store(m)
	}
}

// store has the snapshot brought to where checkpoints are kept.
func (k *Keeper) store(m *wirepb.Captured) {
	source := k.serving
	_, keeper := k.deps.Store.Addr(source.Link)
	k.place = nil
	if k.cfg.AtPeer {
		if k.place = k.deps.Peer(source.Link.Worker()); k.place == nil {
			k.fail(wire.Errorf(wire.CodeNoWorker, "no peer to keep it"))
			return
		}
		keeper = k.place.Worker()
	}
	next := k.LastEpoch() + 1
	token, err := k.Allow(source.Link, wirepb.Purpose_PURPOSE_STATE_TRANSFER,
		source.Link.Worker(), keeper, source.Epoch, next)
	if err != nil {
		k.fail(err)
		return
	}
	from := &wirepb.Fetch{
		Session: k.ID, Epoch: next, Addr: source.Link.MgmtAddr(), Token: token, Sequence: m.GetSequence(),
		TimeoutMs: uint64(k.cfg.TransferTimeout.Milliseconds()),
	}
	k.out = k.asked
	if k.place != nil {
		k.place.Hold(&wirepb.Hold{From: from, SourceEpoch: source.Epoch}, k)
		return
	}
	epoch, request := source.Epoch, k.asked
	k.cancel = k.deps.Store.Fetch(from, func(sequence uint64, err error) {
		if !k.post(func() { k.stored(epoch, request, sequence, err) }) {
			k.deps.Store.Drop(k.ID) // the stream has given back already what it kept
		}
	})
}

// Held takes a peer's word whether it keeps the checkpoint. Any goroutine may call it.
func (k *Keeper) Held(m *wirepb.Held) {
	var err error
	if m.GetCode() != "" {
		err = wire.Errorf(wire.Code(m.GetCode()), "%s", m.GetMessage())
	}
	k.post(func() { k.stored(m.GetSourceEpoch(), k.out, m.GetSequence(), err) })
}

// stored records that the state of an attempt is where it should be, or why not.
func (k *Keeper) stored(source, request, sequence uint64, err error) {
	awaited := k.asked != 0 && k.asked == request
	if k.out == request {
		k.out = 0
	}
	switch present := k.serving != nil && source == k.serving.Epoch; {
	case err != nil && !(present && awaited):
		return // nobody waits for it any more
	case !present: // it may be beyond the cut, and the one before is lost
		k.epoch = 0
		return
	case err != nil:
		k.fail(err)
		return
	}
	if k.peer != nil && k.peer != k.place {
		k.peer.Discard(k.ID)
	}
	k.epoch, k.sequence, k.peer, k.failures = source, sequence, k.place, 0
	k.deps.Limiter.made.Add(1)
	if awaited {
		k.stop()
	}
}

// fail counts a checkpoint that failed. The one before stays.
func (k *Keeper) fail(err error) {
	if k.failures == 0 {
		k.deps.Log.Warn("no checkpoint of the engine's state; trying again, less often", zap.Error(err))
	}
	k.failures++
	k.deps.Limiter.failed.Add(1)
	k.stop()
}

// For returns where the worker of a new attempt finds the engine's state, or nil where there is none.
func (k *Keeper) For(a *attempt.Attempt) *wirepb.Fetch {
	if k.epoch == 0 || !a.Stateful() || k.peer != nil && !k.peer.Up() {
		return nil
	}
	addr, token, err := k.allow(a)
	if err != nil {
		k.deps.Log.Warn("the checkpoint cannot be used", zap.Error(err))
		return nil
	}
	return &wirepb.Fetch{
		Session: k.ID, Epoch: a.Epoch, Addr: addr, Token: token, Sequence: k.sequence, AtDirector: k.peer == nil,
		TimeoutMs: uint64(k.cfg.TransferTimeout.Milliseconds() / 2), // the rest is for the engine to start over
	}
}

// allow has whoever keeps the newest checkpoint allow the worker of an attempt to get it, and returns where that is.
func (k *Keeper) allow(a *attempt.Attempt) (addr string, token *wirepb.Token, err error) {
	const purpose = wirepb.Purpose_PURPOSE_STATE_TRANSFER
	if k.peer != nil {
		token, err = k.Allow(k.peer, purpose, k.peer.Worker(), a.Link.Worker(), k.epoch, a.Epoch)
		return k.peer.MgmtAddr(), token, err
	}
	addr, keeper := k.deps.Store.Addr(a.Link)
	if token, err = k.Issue(purpose, keeper, a.Link.Worker(), k.epoch, a.Epoch); err != nil {
		return "", nil, err
	}
	return addr, token, k.deps.Store.Allow(token)
}
