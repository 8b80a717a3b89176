package link

import (
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/services/worker/internal/state"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// read handles the control stream's frames until it ends.
func (l *link) read(ctx context.Context, frames *wire.Reader) error {
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return errDirector
		}
		if err != nil {
			return err
		}
		m, err := wire.Decode(f)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wirepb.Attach:
			l.attach(ctx, m)
		case *wirepb.Credit:
			l.credit(m)
		case *wirepb.Cancel:
			l.cancel(m)
		case *wirepb.DrainMark:
			l.server.drainMark(m.GetDrained(), l.director)
		case *wirepb.Rhythm:
			if err := l.follow(ctx, m); err != nil {
				return err
			}
		default:
			if !l.migrate(ctx, m) {
				return wire.Errorf(wire.CodeProtocol, "%s has no place on a control stream", f.Type)
			}
		}
	}
}

// follow changes how often progress is reported, and has it reported at once. A director that hears nothing asks again.
func (l *link) follow(ctx context.Context, m *wirepb.Rhythm) error {
	every := time.Duration(m.GetProgressIntervalMs()) * time.Millisecond
	switch {
	case every <= 0 || every > maxProgress:
		return wire.Errorf(wire.CodeProtocol, "progress every %v, allowed is up to %v", every, maxProgress)
	case every == l.every:
		return nil
	}
	l.every = every
	select {
	case l.rhythm <- every:
	case <-ctx.Done():
	}
	return nil
}

// attach starts a session, or refuses it.
func (l *link) attach(ctx context.Context, m *wirepb.Attach) {
	l.server.counters.attached()
	var err error
	if m.GetStandby() {
		err = l.states.Admit(m)
	}
	if err == nil {
		if refusal := l.add(ctx, m); refusal != nil {
			err = refusal
		}
	}
	if err != nil {
		l.refuse(m.GetSession(), m.GetEpoch(), wire.AsError(err, wire.CodeTokenMissing))
	}
}

func (l *link) refuse(session, epoch uint64, refusal *wire.Error) {
	l.server.counters.refused(refusal.Code)
	l.log.Debug("session refused", zap.Uint64("session", session), zap.Uint64("epoch", epoch), zap.Error(refusal))
	l.control.Send(&wirepb.Refused{
		Session: session, Epoch: epoch, Code: string(refusal.Code), Message: wire.Text(refusal.Message),
	})
}

// add has a session started that this link serves. An older one of the same number ends first.
func (l *link) add(ctx context.Context, m *wirepb.Attach) *wire.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil { // whoever ends the link drops the sessions only after that
		return wire.Errorf(wire.CodeUnavailable, "%v", context.Cause(ctx))
	}
	number := m.GetSession()
	if older := l.sessions[number]; older != nil {
		if older.epoch >= m.GetEpoch() {
			return wire.Errorf(wire.CodeStaleEpoch, "session %d is attached in epoch %d already", number, older.epoch)
		}
		older.Stop()
		l.forget(older)
	}
	out := &outlet{link: l, session: number, epoch: m.GetEpoch(), lane: l.lanes.take(m.GetConnectionId())}
	s, run, refusal := l.server.deps.Sessions.Start(ctx, session.Start{
		Attach: m, Director: l.director, Peer: l.conn.RemoteAddr().String(), States: l.states, Log: l.log,
	}, out)
	if refusal != nil {
		l.lanes.release(m.GetConnectionId())
		return refusal
	}
	served := &served{Session: s, number: number, epoch: m.GetEpoch(), connection: m.GetConnectionId()}
	l.sessions[number] = served
	l.running.Go(func() {
		run()
		l.remove(served)
	})
	return nil
}

// served is a session that this link serves.
type served struct {
	*session.Session
	number, epoch uint64
	connection    string
}

// remove takes a session out of the tables, unless another one has its number already.
func (l *link) remove(s *served) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions[s.number] == s {
		l.forget(s)
	}
}

// forget takes a session out of the tables. l.mu is held.
func (l *link) forget(s *served) {
	delete(l.sessions, s.number)
	l.lanes.release(s.connection)
}

// find returns the session of a number in an epoch, or nil.
func (l *link) find(session, epoch uint64) *served {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[session]; s != nil && s.epoch == epoch {
		return s
	}
	return nil
}

// credit lets sessions send more, and forget what their clients have. Grants for sessions that are over mean nothing.
func (l *link) credit(m *wirepb.Credit) {
	for _, grant := range m.GetGrants() {
		if s := l.find(grant.GetSession(), grant.GetEpoch()); s != nil {
			s.Credit(grant.GetSequence(), grant.GetAcknowledged())
		}
	}
}

// cancel ends a session that the director does not want any more. Nothing of it is sent from here on.
func (l *link) cancel(m *wirepb.Cancel) {
	if s := l.find(m.GetSession(), m.GetEpoch()); s != nil {
		l.server.counters.cancelled()
		s.Stop()
		l.remove(s)
	}
}

// migrate handles what planned swaps and checkpoints need. It reports false for what has no place on a control stream.
func (l *link) migrate(ctx context.Context, m wire.Message) bool {
	switch m := m.(type) {
	case *wirepb.Feed:
		l.order(m.GetSession(), m.GetEpoch(), m)
	case *wirepb.Fetch:
		l.order(m.GetSession(), m.GetEpoch(), m)
	case *wirepb.Pivot:
		l.order(m.GetRest().GetSession(), m.GetRest().GetEpoch(), m)
	case *wirepb.Capture:
		l.running.Go(func() { l.control.Send(l.states.Capture(ctx, m, func() state.Source { return l.source(m) })) })
	case *wirepb.Hold:
		l.running.Go(func() { l.control.Send(l.states.Hold(ctx, m)) })
	case *wirepb.Discard:
		l.states.Discard(m.GetSession(), m.GetCheckpoint())
	case *wirepb.Allow:
		if err := l.states.Allow(m.GetToken()); err != nil {
			l.log.Warn("migration token", zap.Error(err), l.few())
		}
	case *wirepb.Revoke:
		l.states.Revoke(m.GetSession(), m.GetEpoch())
	default:
		return false
	}
	return true
}

// source returns the session whose state is to be captured, or nil.
func (l *link) source(m *wirepb.Capture) state.Source {
	if s := l.find(m.GetSession(), m.GetEpoch()); s != nil {
		return s
	}
	return nil
}

// order hands a standby what it has to do.
func (l *link) order(number, epoch uint64, m wire.Message) {
	s := l.find(number, epoch)
	if s == nil {
		return // cancelled meanwhile
	}
	if refusal := s.Order(m); refusal != nil {
		l.log.Warn("too many orders for a standby", zap.Uint64("session", number), l.few())
		s.Stop()
		l.remove(s)
		l.refuse(number, epoch, refusal)
	}
}
