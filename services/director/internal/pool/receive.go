package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Sink takes what a worker says of one stream. The link's readers call it; it never blocks. What belongs to another epoch than the one that counts is
// dropped there: that is the fence.
type Sink interface {
	// Token takes one token, which came at a time. Its text is valid during the call.
	Token(t wire.Token, at time.Time)
	// Flush hands what Token took to the client, and returns what the worker may send now, or nil.
	Flush() *wirepb.Credit_Grant
	// Client tells streams of the same client apart, so that they are flushed together.
	Client() uint64

	Begun(m *wirepb.Begin)
	Ended(m *wirepb.End)
	Failed(m *wirepb.Fail)
	Refused(m *wirepb.Refused)
	Prepared(m *wirepb.Prepared)
	Captured(m *wirepb.Captured)
}

// Holder is told whether a worker keeps the checkpoint that it was asked to keep. It never blocks.
type Holder interface{ Held(m *wirepb.Held) }

// acceptTokens reads each token stream that the worker opens.
func (l *Link) acceptTokens(ctx context.Context, running *sync.WaitGroup) error {
	for {
		stream, err := l.conn.AcceptUniStream(ctx)
		if err != nil {
			return err
		}
		running.Go(func() { l.lose(l.classify(l.readTokens(stream))) })
	}
}

// batch is what one read of a token stream brought.
type batch struct {
	at     time.Time // when it came
	dirty  []Sink
	grants []*wirepb.Credit_Grant
}

// batchMost bounds what is collected while the stream does not pause.
const batchMost = 1024

// readTokens is the hot path: it fences and journals each token under its session's own short lock, and when
// all that has arrived is taken, hands it on, client by client.
func (l *Link) readTokens(stream *quic.ReceiveStream) error {
	frames := wire.NewReader(stream, wire.MaxControl)
	var b batch
	for {
		f, err := frames.Next()
		if err != nil {
			l.flush(&b)
			if errors.Is(err, io.EOF) {
				return lost(CauseClosed, errors.New("worker ended a token stream"))
			}
			return err
		}
		if err := l.receive(f, &b); err != nil {
			l.flush(&b)
			return err
		}
		if len(b.dirty) >= batchMost || !frames.Ready() {
			l.flush(&b)
		}
	}
}

func (l *Link) receive(f wire.Frame, b *batch) error {
	if f.Type == wire.TypeLinkToken {
		t, err := wire.ParseLinkToken(f.Body)
		if err != nil {
			return err
		}
		s := l.session(t.Session)
		if s == nil {
			l.fenced.Add(1)
			return nil
		}
		if len(b.dirty) == 0 {
			b.at = time.Now()
		}
		s.Token(t, b.at)
		if last := len(b.dirty) - 1; last < 0 || b.dirty[last] != s {
			b.dirty = append(b.dirty, s)
		}
		return nil
	}
	m, err := wire.Decode(f)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wirepb.Begin:
		if s := l.session(m.GetSession()); s != nil {
			s.Begun(m)
		}
	case *wirepb.End:
		if s := l.session(m.GetSession()); s != nil {
			s.Ended(m)
		}
	case *wirepb.Fail:
		if s := l.session(m.GetSession()); s != nil {
			s.Failed(m)
		}
	default:
		return fmt.Errorf("%w: %s on a token stream", wire.ErrUnexpected, f.Type)
	}
	return nil
}

// flush hands the batch to the clients, those of one connection together, so that they share packets.
func (l *Link) flush(b *batch) {
	if len(b.dirty) == 0 {
		return
	}
	slices.SortStableFunc(b.dirty, func(x, y Sink) int { return cmp.Compare(x.Client(), y.Client()) })
	for _, s := range b.dirty {
		if g := s.Flush(); g != nil {
			b.grants = append(b.grants, g)
		}
	}
	if len(b.grants) > 0 {
		l.Grant(b.grants...)
	}
	clear(b.dirty)
	clear(b.grants)
	b.dirty, b.grants = b.dirty[:0], b.grants[:0]
}

func (l *Link) session(id uint64) Sink {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempts[id]
}

// readControl reads the control stream until it ends.
func (l *Link) readControl(frames *wire.Reader) error {
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return lost(CauseClosed, errors.New("worker ended the control stream"))
		}
		if err != nil {
			return err
		}
		m, err := wire.Decode(f)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wirepb.Progress:
			l.mu.Lock()
			l.progress++
			l.mu.Unlock()
		case *wirepb.Refused:
			l.refused(m)
		case *wirepb.Prepared:
			if s := l.session(m.GetSession()); s != nil {
				s.Prepared(m)
			}
		case *wirepb.Captured:
			if s := l.session(m.GetSession()); s != nil {
				s.Captured(m)
			}
		case *wirepb.Held:
			l.held(m)
		case *wirepb.WorkerStatus:
			l.status(m)
		default:
			return fmt.Errorf("%w: %s on the control stream", wire.ErrUnexpected, f.Type)
		}
	}
}

func (l *Link) refused(m *wirepb.Refused) {
	s := l.session(m.GetSession())
	if s == nil {
		return
	}
	if code := wire.Code(m.GetCode()); code == wire.CodeUnavailable || code == wire.CodeCapacity {
		l.rest()
	}
	s.Refused(m)
}

// status takes note of the worker's readiness. If it failed, its sessions go elsewhere at once.
func (l *Link) status(m *wirepb.WorkerStatus) {
	l.mu.Lock()
	l.ready = m.GetAvailable()
	var orphans []*Waiter
	if m.GetFailed() {
		orphans = l.take()
	}
	l.mu.Unlock()
	if m.GetFailed() {
		l.log.Warn("worker reported failure", zap.String("reason", m.GetReason()), zap.Int("sessions", len(orphans)))
		l.pool.orphan(l, orphans, CauseReported)
		return
	}
	l.log.Info("worker status", zap.Bool("available", m.GetAvailable()), zap.String("reason", m.GetReason()))
	if m.GetDraining() {
		l.pool.leaving(l)
		return
	}
	l.pool.changed()
}
