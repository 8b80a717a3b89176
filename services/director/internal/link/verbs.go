package link

import (
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Send sends a message on the control stream, such as those for standbys. Attach, Cancel and Grant have their own.
func (l *Link) Send(m wire.Message) { l.control.Send(m) }

// Attach gives a stream to the worker, for one epoch. What the worker says of it comes to s, until Cancel.
func (l *Link) Attach(m *wirepb.Attach, s Sink) {
	l.sinks.attach(m.GetSession(), m.GetEpoch(), s)
	if !l.busy.Swap(true) {
		l.askFor(l.cfg.KeepAlive)
	}
	l.control.Send(m)
}

// Cancel takes a stream back from the worker, for one epoch.
func (l *Link) Cancel(session, epoch uint64) {
	l.sinks.detach(session, epoch)
	l.control.Send(&wirepb.Cancel{Session: session, Epoch: epoch})
}

// Grant lets the worker send more.
func (l *Link) Grant(grants ...*wirepb.Credit_Grant) {
	l.control.Send(&wirepb.Credit{Grants: grants})
}

// Hold asks the worker to keep a session's checkpoint. The answer comes to s, unless the link is lost before.
func (l *Link) Hold(m *wirepb.Hold, s Holder) {
	l.sinks.await(m.GetFrom().GetSession(), s)
	l.control.Send(m)
}

// Discard lets the worker forget the checkpoint that it keeps of a session. An answer to Hold is not waited for any
// more.
func (l *Link) Discard(session uint64) {
	l.sinks.awaited(session)
	l.control.Send(&wirepb.Discard{Session: session, Checkpoint: true})
}
