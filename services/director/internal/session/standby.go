package session

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// This file is what a planned swap does with its target while the source still serves: bring it to where the stream is,
// and hand over.

const (
	// nearEnough is how many tokens a standby may lack: they travel with the pivot.
	nearEnough = 16
	// feedMost bounds the rounds for a standby that does not catch up; what it lacks then travels with the pivot too.
	feedMost = 8
	// The cut waits for a token to arrive, so that the whole interval to the next one is there for it: for this many
	// intervals, within these bounds.
	cutIntervals = 2
	cutWaitMin   = 40 * time.Millisecond
	cutWaitMax   = time.Second
	// tokenPause is how long a swap waits that found the limit of tokens for its target reached.
	tokenPause = 50 * time.Millisecond
)

// ask sends the target what it needs to open the attempt, or to get the state. Without a token that has to wait.
func (s *Session) ask() {
	p := s.plan
	if p.swap.State() == migration.TransferringState && !p.link.Stateful() {
		s.feed()
		return
	}
	var err error
	if p.swap.State() == migration.Preparing {
		err = s.openStandby()
	} else {
		err = s.fetch()
	}
	if p.late = err != nil; p.late {
		s.log.Debug("planned swap waits for a token", zap.Error(err))
		return
	}
	p.sent = true
}

// openStandby opens the attempt on the target, which reserves a place for it.
func (s *Session) openStandby() error {
	p := s.plan
	token, err := s.allow(p.link, wirepb.Purpose_PURPOSE_MIGRATION, p.swap.From, p.swap.To, s.wish.Epoch, p.wish.Epoch)
	if err != nil {
		return err
	}
	s.mu.Lock()
	attach := s.attach(p.wish.Epoch)
	s.mu.Unlock()
	attach.Standby, attach.Secret, attach.Credit = true, token.GetSecret(), 0
	p.link.Attach(attach)
	return nil
}

// fetch tells the target where the state is.
func (s *Session) fetch() error {
	p := s.plan
	token, err := s.allow(s.link, wirepb.Purpose_PURPOSE_STATE_TRANSFER, p.swap.From, p.swap.To, s.wish.Epoch, p.wish.Epoch)
	if err != nil {
		return err
	}
	p.link.Send(&wirepb.Fetch{
		Session: s.who.ID, Epoch: p.wish.Epoch, Addr: s.link.MgmtAddr(), Token: token, Sequence: p.needs,
		TimeoutMs: uint64(s.cfg.TransferTimeout.Milliseconds()),
	})
	return nil
}

// allow makes a token for the target and gives it to its holder, who grants what it allows: the worker behind a link, or
// the director itself for nil.
func (s *Session) allow(holder *pool.Link, purpose wirepb.Purpose, source, target string, from, to uint64) (*wirepb.Token, error) {
	t, err := s.deps.Tokens.Issue(token.Claims{
		Purpose: purpose, Session: s.who.ID, ConnectionID: s.who.ConnectionID, StreamID: s.who.StreamID,
		Source: source, Target: target, FromEpoch: from, ToEpoch: to,
	})
	switch {
	case err != nil:
		return nil, err
	case holder == nil:
		return t, s.deps.Checkpoints.Allow(t)
	}
	holder.Send(&wirepb.Allow{Token: t})
	return t, nil
}

// revoke makes the tokens of a planned swap useless, wherever they are.
func (s *Session) revoke(p *plan) {
	for _, link := range []*pool.Link{s.link, p.link} {
		if link != nil {
			link.Send(&wirepb.Revoke{Session: s.who.ID, Epoch: p.wish.Epoch})
		}
	}
}

// capture asks the source for the engine's state, if that has one. Otherwise the journal is the state.
func (s *Session) capture() {
	p := s.plan
	if !p.link.Stateful() {
		s.advance(migration.Captured)
		return
	}
	p.capture = s.askForState(s.cfg.TransferTimeout)
}

// feed brings the target the tokens that came meanwhile, or finds that it has caught up.
func (s *Session) feed() {
	p := s.plan
	length := s.length()
	near := length <= p.prepared+nearEnough || p.rounds >= feedMost
	switch {
	case near && length >= p.needs:
		s.advance(migration.Accepted)
	case p.sent || length == p.prepared: // an answer is on its way, or there is nothing new
	default:
		p.rounds++
		p.sent = true
		s.mu.Lock()
		feed := s.since(p.wish.Epoch, p.prepared)
		s.mu.Unlock()
		p.link.Send(feed)
	}
}

// since returns the tokens after the given one, for the attempt of an epoch. s.mu is held.
func (s *Session) since(epoch, sequence uint64) *wirepb.Feed {
	text, lengths := s.flow.journal.Since(sequence)
	return &wirepb.Feed{Session: s.who.ID, Epoch: epoch, FirstSequence: sequence + 1, Text: text, Lengths: lengths}
}

// onPrepared hears how far the target is.
func (s *Session) onPrepared(m *wirepb.Prepared) {
	p := s.plan
	if p == nil || m.GetEpoch() != p.wish.Epoch || m.GetSequence() > s.length() {
		return
	}
	p.prepared = m.GetSequence()
	switch p.swap.State() { //nolint:exhaustive // in all others nothing waits for it
	case migration.Preparing:
		s.advance(migration.Opened)
	case migration.TransferringState:
		p.sent = false
		s.feed()
	}
}

// cut is the point of no return: the source is fenced after the journal's last token, which came at last, and the target
// owns what follows.
func (s *Session) cut(last time.Time) {
	p := s.plan
	s.mu.Lock()
	f := &s.flow
	f.armed = false
	if f.wish != s.wish || f.plan != p.wish || f.epoch == 0 {
		s.mu.Unlock()
		return // source or target was lost in this moment; the event that says so is on its way
	}
	s.fence()
	f.wish, f.plan, f.heard = p.wish, nil, f.planHeard
	p.swap.Cut = f.journal.Len()
	message := s.handOver(p)
	s.mu.Unlock()
	s.keep.cutAt(p.swap.Cut)
	s.source, s.last = attempt{s.wish, s.link}, last
	s.wish, s.link, s.swap, s.plan, s.planned = p.wish, p.link, p.swap, nil, p.Done
	s.homeless, s.told, s.attemptAt = s.deps.Clock.Now(), false, p.swap.Cut
	s.link.Send(message)
	s.step(migration.Pivoted)
}

// handOver returns what makes the target the owner, and opens the session for its answer. s.mu is held.
func (s *Session) handOver(p *plan) wire.Message {
	s.expect(p.wish.Epoch)
	digest := s.flow.journal.Digest()
	return &wirepb.Pivot{Rest: s.since(p.wish.Epoch, p.prepared), Cut: p.swap.Cut, Digest: digest[:], Credit: s.flow.client.granted}
}

// silence is how long no token came, in lived time.
func (s *Session) silence() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deps.Clock.Since(s.flow.pace.last)
}
