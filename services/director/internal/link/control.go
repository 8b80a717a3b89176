package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// controlReader reads the control stream. Its goroutine owns it.
type controlReader struct {
	link   *Link
	frames *wire.Reader
}

// run reads until the stream ends.
func (r controlReader) run() error {
	for {
		f, err := r.frames.Next()
		if errors.Is(err, io.EOF) {
			return Lost(CauseClosed, errors.New("worker ended the control stream"))
		}
		if err != nil {
			return err
		}
		m, err := wire.Decode(f)
		if err != nil {
			return err
		}
		if !r.handle(m) {
			return fmt.Errorf("%w: %s on the control stream", wire.ErrUnexpected, f.Type)
		}
	}
}

// readProgress takes the worker's reports of progress. They come as datagrams: one that is lost holds up no other.
func (l *Link) readProgress(ctx context.Context) error {
	for {
		b, err := l.conn.ReceiveDatagram(ctx)
		if err != nil {
			return err
		}
		m, err := wire.ReadRequest[*wirepb.Progress](wire.NewReader(bytes.NewReader(b), wire.SmallBuffer))
		if err != nil {
			return err
		}
		if last := l.progress.Load(); last.GetCount() < m.GetCount() { // they may overtake each other
			l.progress.Store(m)
		}
	}
}

// handle acts on one message, and reports false if it has no place on the control stream.
func (r controlReader) handle(m wire.Message) bool {
	switch m := m.(type) {
	case *wirepb.Refused:
		r.refused(m)
	case *wirepb.Prepared:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			s.Prepared(m)
		}
	case *wirepb.Captured:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			s.Captured(m)
		}
	case *wirepb.Held:
		if s := r.link.sinks.awaited(m.GetSession()); s != nil {
			s.Held(m)
		}
	case *wirepb.WorkerStatus:
		r.status(m)
	default:
		return false
	}
	return true
}

// refused lets go of a stream that the worker did not take.
func (r controlReader) refused(m *wirepb.Refused) {
	s := r.link.sinks.find(m.GetSession())
	if s == nil {
		return
	}
	r.link.sinks.detach(m.GetSession(), m.GetEpoch())
	r.link.declined(m.GetCode())
	s.Refused(m)
}

// declined tells placement if a code says that the worker has no room, or that its engine takes nothing now.
func (l *Link) declined(code string) {
	if c := wire.Code(code); c == wire.CodeUnavailable || c == wire.CodeCapacity {
		l.owner.Declined(l)
	}
}

// status records the worker's readiness. If the worker failed, its streams go elsewhere at once.
func (r controlReader) status(m *wirepb.WorkerStatus) {
	r.link.says(m.GetAvailable(), m.GetReason())
	if m.GetFailed() {
		r.link.log.Warn("worker reported failure", zap.String("reason", m.GetReason()), zap.Int("sessions", r.link.sinks.detachAll()))
	} else {
		r.link.log.Info("worker status", zap.Bool("available", m.GetAvailable()), zap.String("reason", m.GetReason()))
	}
	r.link.owner.Status(r.link, m)
}
