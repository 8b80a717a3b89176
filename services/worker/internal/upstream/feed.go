package upstream

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
)

// server is what an Engine needs of an inference server; an *api.Server has it, but for the type of its streams.
type server interface {
	Features() api.Features
	Generate(ctx context.Context, call api.Call) (stream, error)
	Tokenize(ctx context.Context, call api.Call) ([]uint32, error)
	Warm(ctx context.Context, call api.Call) error
	Likely(ctx context.Context, model string, ids []uint32, from int) (bool, error)
	Answer(ctx context.Context, of, model string, body []byte) ([]byte, error)
	Answers() []string
}

// stream is an answer on its way: see api.Stream.
type stream interface {
	Next() (api.Delta, error)
	PromptTokens() int
	Close()
}

// remote is an *api.Server as a server.
type remote struct{ *api.Server }

func (r remote) Generate(ctx context.Context, call api.Call) (stream, error) {
	s, err := r.Server.Generate(ctx, call)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// feed reads an answer from its server, some pieces ahead of whoever takes them: next may be given up, and asked again. Its goroutine
// ends with the answer, or with close.
type feed struct {
	pieces chan api.Delta // closed at the end
	cancel context.CancelFunc
	prompt atomic.Int64 // tokens of the prompt; 0 as long as they are not known
	err    error        // how it ended; may be read once pieces is closed
	report func(error)  // told once how the attempt came out, where that says something about the server
}

// newFeed asks for an answer. ahead is how many pieces of it may wait.
func newFeed(ctx context.Context, s server, call api.Call, ahead int, report func(error)) *feed {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &feed{pieces: make(chan api.Delta, ahead), cancel: cancel, report: report}
	go f.run(ctx, s, call)
	return f
}

func (f *feed) run(ctx context.Context, s server, call api.Call) {
	defer close(f.pieces)
	pieces := 0
	defer func() {
		if ctx.Err() == nil {
			f.report(outcome(f.err))
		} else if pieces > 0 {
			f.report(nil) // it was good as long as it was wanted
		}
	}()
	answer, err := s.Generate(ctx, call)
	if err != nil {
		f.err = err
		return
	}
	defer answer.Close()
	for {
		d, err := answer.Next()
		if n := answer.PromptTokens(); n > 0 {
			f.prompt.Store(int64(n))
		}
		if err != nil {
			f.err = err
			return
		}
		pieces++
		select {
		case f.pieces <- d:
		case <-ctx.Done():
			f.err = ctx.Err()
			return
		}
	}
}

// next returns the next piece, or how the answer ended. The error is also that of a context that ends.
func (f *feed) next(ctx context.Context) (api.Delta, error) {
	if err := ctx.Err(); err != nil {
		return api.Delta{}, context.Cause(ctx)
	}
	select {
	case d, ok := <-f.pieces:
		if !ok {
			return api.Delta{}, f.err
		}
		return d, nil
	case <-ctx.Done():
		return api.Delta{}, context.Cause(ctx)
	}
}

// close ends the answer, and has the server abort it.
func (f *feed) close() {
	f.cancel()
	for range f.pieces { //nolint:revive // until the goroutine has ended
	}
}

// outcome returns what an attempt says of its server: nil where that has done what it should.
func outcome(err error) error {
	if _, complete := engine.Finished(err); complete || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	var fault *api.Error
	if errors.As(err, &fault) && fault.Fault == api.Rejected {
		return nil
	}
	return err
}

// tick is how often it is said that an engine waits for a server.
const tick = 100 * time.Millisecond

// ticks says again and again that an engine waits, until stop is called: that has no size, only a number that rises.
type ticks struct {
	progress engine.Progress
	n        int
	stopped  chan struct{} // closed to stop; nil while nothing runs
	done     chan struct{} // closed when it has stopped
}

func (t *ticks) start() {
	if t.stopped != nil {
		return
	}
	t.stopped, t.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(t.done)
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				t.n++
				t.progress(t.n, 0)
			case <-t.stopped:
				return
			}
		}
	}()
}

func (t *ticks) stop() {
	if t.stopped == nil {
		return
	}
	close(t.stopped)
	<-t.done
	t.stopped = nil
}
