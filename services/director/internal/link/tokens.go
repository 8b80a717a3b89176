package link

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	at     time.Time // when the present batch came; zero before its first token
	client uint64    // whose streams are dirty
	dirty  []Sink    // have taken tokens that are not flushed
	grants []*wirepb.Credit_Grant

	chunks, tokens int // of the present batch
}

// run is the hot path: each token is fenced and recorded under its stream's own short lock. A worker puts side by side
// what it has for one client; when that changes, or all that has arrived is taken, what the client has got is handed
// on, so that it shares packets. That is also when it still is in the cache.
func (r *tokenReader) run() error {
	defer r.settle()
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
		if !r.frames.Ready() { // at the latest where the reader's buffer ends
			r.settle()
		}
	}
}

func (r *tokenReader) receive(f wire.Frame) error {
	if f.IsChunk() {
		t, err := wire.ParseLinkChunk(f)
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
	case *wirepb.Progressing:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			s.Progressing(m)
		}
	case *wirepb.End:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			s.Ended(m)
		}
	case *wirepb.Fail:
		if s := r.link.sinks.find(m.GetSession()); s != nil {
			r.link.declined(m.GetCode())
			s.Failed(m)
		}
	default:
		return fmt.Errorf("%w: %s on a token stream", wire.ErrUnexpected, f.Type)
	}
	return nil
}

func (r *tokenReader) token(t wire.Chunk) {
	s, client := r.link.sinks.findOf(t.Session)
	if s == nil {
		r.link.fenced.Add(1)
		return
	}
	if client != r.client {
		r.flush()
		r.client = client
	}
	if r.at.IsZero() {
		r.at = time.Now()
	}
	r.chunks++
	r.tokens += int(t.Tokens())
	if s.Token(t, r.at) {
		r.dirty = append(r.dirty, s)
	}
}

// flush hands one client what it has got.
func (r *tokenReader) flush() {
	for _, s := range r.dirty {
		if g := s.Flush(); g != nil {
			r.grants = append(r.grants, g)
		}
	}
	clear(r.dirty)
	r.dirty = r.dirty[:0]
}

// settle ends a batch: the last client gets its part, and the worker is told what it may send now.
func (r *tokenReader) settle() {
	r.flush()
	if len(r.grants) > 0 {
		r.link.Grant(r.grants...)
	}
	if r.chunks > 0 {
		r.link.cfg.Flow.Batch(r.chunks, r.tokens, time.Since(r.at))
		r.chunks, r.tokens = 0, 0
	}
	clear(r.grants)
	r.grants, r.at = r.grants[:0], time.Time{}
}
