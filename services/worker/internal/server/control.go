package server

import (
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"

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

// attach starts an attempt, or refuses it.
func (l *link) attach(ctx context.Context, m *wirepb.Attach) {
	l.server.counters.attached()
	if m.GetStandby() {
		if err := l.admit(m); err != nil {
			l.refuse(m.GetSession(), m.GetEpoch(), wire.AsError(err, wire.CodeTokenMissing))
			return
		}
	}
	if refusal := l.add(ctx, newAttempt(l, m)); refusal != nil {
		l.refuse(m.GetSession(), m.GetEpoch(), refusal)
	}
}

func (l *link) refuse(session, epoch uint64, refusal *wire.Error) {
	l.server.counters.refused(refusal.Code)
	l.log.Debug("session refused", zap.Uint64("session", session), zap.Uint64("epoch", epoch), zap.Error(refusal))
	l.control.Send(&wirepb.Refused{
		Session: session, Epoch: epoch, Code: string(refusal.Code), Message: wire.Text(refusal.Message),
	})
}

// add makes room for a and starts it. An older attempt at the same session ends first.
func (l *link) add(ctx context.Context, a *attempt) *wire.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil { // whoever ends the link drops the attempts only after that
		return wire.Errorf(wire.CodeUnavailable, "%v", context.Cause(ctx))
	}
	if older := l.attempts[a.session]; older != nil {
		if older.epoch >= a.epoch {
			return wire.Errorf(wire.CodeStaleEpoch, "session %d is attached in epoch %d already", a.session, older.epoch)
		}
		older.stop()
		l.forget(older)
	}
	model, refusal := l.server.model(a.request.Model)
	if refusal == nil {
		refusal = l.server.reserve(model, a.bytes)
	}
	if refusal != nil {
		return refusal
	}
	a.model = model
	ctx, a.cancel = context.WithCancel(ctx)
	l.attempts[a.session] = a
	a.out = l.lanes.take(a.connection)
	l.running.Go(func() {
		a.run(ctx)
		l.remove(a)
	})
	return nil
}

// remove takes an attempt out of the tables, unless another one has its session already.
func (l *link) remove(a *attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attempts[a.session] == a {
		l.forget(a)
	}
}

// forget takes an attempt out of the tables. l.mu is held.
func (l *link) forget(a *attempt) {
	delete(l.attempts, a.session)
	l.lanes.release(a.connection)
}

// find returns the attempt at a session in an epoch, or nil.
func (l *link) find(session, epoch uint64) *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.attempts[session]; a != nil && a.epoch == epoch {
		return a
	}
	return nil
}

// credit lets attempts send more. Grants for attempts that are over mean nothing.
func (l *link) credit(m *wirepb.Credit) {
	for _, grant := range m.GetGrants() {
		if a := l.find(grant.GetSession(), grant.GetEpoch()); a != nil {
			a.grant(grant.GetSequence())
		}
	}
}

// cancel ends an attempt that the director does not want any more. Nothing of it is sent from here on.
func (l *link) cancel(m *wirepb.Cancel) {
	if a := l.find(m.GetSession(), m.GetEpoch()); a != nil {
		l.server.counters.cancelled()
		a.stop()
		l.remove(a)
	}
}
