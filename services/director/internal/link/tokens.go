package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// acceptTokens reads each token stream that the worker opens.
func (l *Link) acceptTokens(ctx context.Context, running *sync.WaitGroup) error {
	for {
		stream, err := l.conn.AcceptTokens(ctx)
		if err != nil {
			return err
		}
		reader := &tokenReader{link: l, frames: wire.NewReader(counter{stream, &l.arrived}, wire.MaxControl)}
		running.Go(func() { l.lose(classify(reader.run())) })
	}
}

// counter counts what is read.
type counter struct {
	io.Reader
	n *atomic.Uint64
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(uint64(n))
	return n, err
}

// tokenReader reads one token stream. Its goroutine owns all of it.
type tokenReader struct {
	link   *Link
	frames *wire.Reader
	at     time.Time     // when what is not flushed began to come
	batch  uint64        // number of what is not flushed, among those of all readers of the link
	dirty  []*attachment // have taken tokens that are not flushed
	grants []*wirepb.Credit_Grant
}

// batchMost bounds what is collected while the stream does not pause.
const batchMost = 1024

// run is the hot path: each token is fenced and recorded under its stream's own short lock, and when all that has
// arrived is taken, it is handed on, client by client.
func (r *tokenReader) run() error {
	defer r.flush()
	for {
		f, err := r.frames.Next()
		if errors.Is(err, io.EOF) {
			return Lost(CauseClosed, errors.New("worker ended a token stream"))
		}
		if err == nil {
			err = r.receive(f)
		}
		if err != nil {
			return err
		}
		if len(r.dirty) >= batchMost || !r.frames.Ready() {
			r.flush()
		}
	}
}

func (r *tokenReader) receive(f wire.Frame) error {
	if f.Type == wire.TypeLinkToken {
		t, err := wire.ParseLinkToken(f.Body)
		if err != nil {
			return err
		}
		r.token(t)
		return nil
	}
	m, err := wire.Decode(f)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wirepb.Begin:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			s.Begun(m)
		}
	case *wirepb.End:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			s.Ended(m)
		}
	case *wirepb.Fail:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			s.Failed(m)
		}
	default:
		return fmt.Errorf("%w: %s on a token stream", wire.ErrUnexpected, f.Type)
	}
	return nil
}

func (r *tokenReader) token(t wire.Token) {
	s := r.link.sinks.find(t.Session)
	if s == nil {
		r.link.fenced.Add(1)
		return
	}
	if len(r.dirty) == 0 {
		r.at, r.batch = time.Now(), r.link.batches.Add(1)
	}
	s.Token(t, r.at)
	// A worker that sends one stream's tokens to two readers at a time has it flushed more often, but never too seldom.
	if s.batch.Load() != r.batch {
		s.batch.Store(r.batch)
		r.dirty = append(r.dirty, s)
	}
}

// flush hands the batch to the clients, those of one connection together, so that they share packets.
func (r *tokenReader) flush() {
	if len(r.dirty) == 0 {
		return
	}
	slices.SortStableFunc(r.dirty, func(x, y *attachment) int { return cmp.Compare(x.client, y.client) })
	for _, s := range r.dirty {
		if g := s.Flush(); g != nil {
			r.grants = append(r.grants, g)
		}
	}
	if len(r.grants) > 0 {
		r.link.Grant(r.grants...)
	}
	clear(r.dirty)
	clear(r.grants)
	r.dirty, r.grants = r.dirty[:0], r.grants[:0]
}
