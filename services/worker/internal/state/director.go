package state

import (
	"context"
	"errors"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Source is what a state is captured from.
type Source interface {
	// Capture returns the engine's state after the chunk of that sequence. number is that of the request.
	Capture(ctx context.Context, number uint64) (sequence uint64, state []byte, err error)
	// Offer calls offer, unless the session has ended or was asked again with a higher number.
	Offer(number uint64, offer func() error) error
}

// Director is what a Keeper does for one director's process, as long as it has a link. It is safe for concurrent use.
type Director struct {
	keeper   *Keeper
	instance string
	grants   *token.Grants // what the director allows, until Leave
}

// Join begins with a director's process. Leave ends it.
func (k *Keeper) Join(instance string) *Director {
	return &Director{keeper: k, instance: instance, grants: k.tokens.Join(instance)}
}

// Leave ends what the director allows. What is kept for it stays for its time.
func (d *Director) Leave() { d.keeper.tokens.Leave(d.grants) }

// key is under which name a session's snapshot or checkpoint is stored: a director numbers its sessions itself.
func (d *Director) key(session uint64, checkpoint bool) transfer.Key {
	return transfer.Key{Director: d.instance, Session: session, Checkpoint: checkpoint}
}

// Admit checks the token of a standby.
func (d *Director) Admit(m *wirepb.Attach) error {
	if m.GetSession() == 0 || m.GetEpoch() == 0 { // any, for a holder of tokens
		return wire.Errorf(wire.CodeInvalid, "a standby for session %d in epoch %d", m.GetSession(), m.GetEpoch())
	}
	_, err := d.keeper.tokens.Show(m.GetSecret(), token.Want{
		Purpose: wirepb.Purpose_PURPOSE_MIGRATION, Director: d.instance, Session: m.GetSession(),
		Target: d.keeper.cfg.Label, Epoch: m.GetEpoch(),
	})
	return err
}

// Allow takes a migration token to honour.
func (d *Director) Allow(t *wirepb.Token) error { return d.grants.Allow(t) }

// Revoke takes the tokens of a session back, those before an epoch, and with them what they opened.
func (d *Director) Revoke(session, epoch uint64) {
	d.grants.Revoke(session, epoch)
	d.keeper.sender.Revoke(d.instance, session)
}

// Discard drops a session's snapshot, or the checkpoint that is kept of it.
func (d *Director) Discard(session uint64, checkpoint bool) {
	d.keeper.store.Drop(d.key(session, checkpoint))
}

// Fetch returns the snapshot that the director tells of: from here if this worker keeps it, or else from where it is. It is
// the session.States of the director's sessions.
func (d *Director) Fetch(ctx context.Context, m *wirepb.Fetch) (*transfer.Snapshot, error) {
	if stored, ok := d.keeper.store.Get(d.key(m.GetSession(), true)); ok && stored.Sequence() == m.GetSequence() {
		return stored, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout(m))
	defer cancel()
	from := identity.Worker
	if m.GetAtDirector() {
		from = identity.Director
	}
	snapshot, err := d.keeper.puller.Pull(ctx, from, m)
	if refusal := new(wire.Error); err != nil && !errors.As(err, &refusal) { // nobody answers
		err = wire.Errorf(wire.CodeStateGone, "%v", err)
	}
	return snapshot, err
}

// fetchTimeout is how long a director wants a state to be tried for.
func fetchTimeout(m *wirepb.Fetch) time.Duration {
	return min(pullTimeout, time.Duration(min(m.GetTimeoutMs(), uint64(pullTimeout.Milliseconds())))*time.Millisecond)
}

// Capture makes a snapshot of a session's engine, for others to pull, and returns the answer. find returns what the session is
// by then; nil if it is none any more.
func (d *Director) Capture(ctx context.Context, m *wirepb.Capture, find func() Source) *wirepb.Captured {
	answer := &wirepb.Captured{Session: m.GetSession(), Epoch: m.GetEpoch(), Capture: m.GetCapture()}
	snapshot, err := d.capture(ctx, m, find)
	if err != nil {
		answer.Code, answer.Message = inWords(err, wire.CodeEngine)
		return answer
	}
	answer.Sequence, answer.Size = snapshot.Sequence(), uint64(snapshot.Size())
	return answer
}

// capture copies and compresses the engine's state, and stores it for others to pull.
func (d *Director) capture(ctx context.Context, m *wirepb.Capture, find func() Source) (*transfer.Snapshot, error) {
	k := d.keeper
	select {
	case k.capturing <- struct{}{}:
		defer func() { <-k.capturing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	source := find()
	if source == nil {
		return nil, wire.Errorf(wire.CodeStaleEpoch, "session %d is not served in epoch %d", m.GetSession(), m.GetEpoch())
	}
	sequence, state, err := source.Capture(ctx, m.GetCapture())
	if err != nil {
		return nil, err
	}
	if len(state) > k.cfg.MaxState {
		return nil, wire.Errorf(wire.CodeLimit, "a state of %d bytes, allowed are %d (CONNECTION_SWAP_MAX_STATE_BYTES)", len(state), k.cfg.MaxState)
	}
	snapshot, err := transfer.Compress(sequence, state)
	if err != nil {
		return nil, err
	}
	ttl := retention
	if ms := m.GetKeepMs(); 0 < ms && ms < uint64(ttl.Milliseconds()) {
		ttl = time.Duration(ms) * time.Millisecond
	}
	return snapshot, source.Offer(m.GetCapture(), func() error { return k.store.Put(d.key(m.GetSession(), false), snapshot, ttl) })
}

// Hold keeps another worker's checkpoint, and returns the answer.
func (d *Director) Hold(ctx context.Context, m *wirepb.Hold) *wirepb.Held {
	from := m.GetFrom()
	answer := &wirepb.Held{Session: from.GetSession(), SourceEpoch: m.GetSourceEpoch()}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout(from))
	defer cancel()
	snapshot, err := d.pullToHold(ctx, from)
	if err == nil {
		err = d.keeper.store.Put(d.key(from.GetSession(), true), snapshot, retention)
	}
	if err != nil {
		answer.Code, answer.Message = inWords(err, wire.CodeStateGone)
		return answer
	}
	answer.Sequence = snapshot.Sequence()
	return answer
}

// pullToHold pulls a checkpoint, once less than maxHolds others are being pulled.
func (d *Director) pullToHold(ctx context.Context, from *wirepb.Fetch) (*transfer.Snapshot, error) {
	select {
	case d.keeper.holding <- struct{}{}:
		defer func() { <-d.keeper.holding }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return d.keeper.puller.Pull(ctx, identity.Worker, from)
}

// inWords is how a director is told why there is no snapshot.
func inWords(err error, otherwise wire.Code) (code, message string) {
	if errors.Is(err, transfer.ErrFull) {
		err = wire.Errorf(wire.CodeCapacity, "%v (CONNECTION_SWAP_WORKER_MAX_SNAPSHOT_BYTES)", err)
	}
	e := wire.AsError(err, otherwise)
	return string(e.Code), wire.Text(e.Message)
}
