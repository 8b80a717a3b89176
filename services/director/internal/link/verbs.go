package link

import (
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Send sends a message on the control stream, such as those for standbys. Attach, Cancel and Grant have their own.
func (l *Link) Send(m wire.Message) { l.control.Send(m) }

// Attach gives a stream to the worker, for one epoch. What the worker says of it comes to s, until Cancel.
func (l *Link) Attach(m *wirepb.Attach, s Sink) {
	l.mu.Lock()
	l.attached[m.GetSession()] = attachment{s, m.GetEpoch()}
	hurry := !l.busy
	l.busy = true
	l.mu.Unlock()
	if hurry {
		l.askFor(l.cfg.KeepAlive)
	}
	l.control.Send(m)
}

// Cancel takes a stream back from the worker, for one epoch.
func (l *Link) Cancel(session, epoch uint64) {
	l.detach(session, epoch)
	l.control.Send(&wirepb.Cancel{Session: session, Epoch: epoch})
}

// Grant lets the worker send more.
func (l *Link) Grant(grants ...*wirepb.Credit_Grant) {
	l.control.Send(&wirepb.Credit{Grants: grants})
}

// Hold asks the worker to keep a session's checkpoint. The answer comes to s, unless the link is lost before.
func (l *Link) Hold(m *wirepb.Hold, s Sink) {
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

// sink returns who gets what the worker says of a session, or nil.
func (l *Link) sink(session uint64) Sink {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attached[session].sink
}

// detach forgets who gets what the worker says of a session, unless a newer epoch is attached.
func (l *Link) detach(session, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attached[session].epoch == epoch {
		delete(l.attached, session)
	}
}

// detachAll returns how many streams were attached.
func (l *Link) detachAll() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.attached)
	clear(l.attached)
	return n
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
