package pool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/connswap/connswap/shared/wire"
)

// TestWorker is a worker without a connection, for tests of what holds links. What is sent to it is kept; what it says
// takes the way that a worker's own words take.
type TestWorker struct {
	*Link

	mu   sync.Mutex
	sent bytes.Buffer
}

// NewTestWorker registers w and brings its link up. It stays until Lose, or until the pool is closed.
func NewTestWorker(p *Pool, w Worker) *TestWorker {
	t := &TestWorker{Link: newLink(p, &w)}
	ctx, lose := context.WithCancelCause(p.ctx)
	t.lose, t.ready = lose, true
	p.mu.Lock()
	p.workers[w.Label] = t.worker
	p.mu.Unlock()
	p.keepers.Go(func() { _ = t.control.Run(ctx, t) }) // ends with ctx only
	t.setUp()
	return t
}

// Write takes what the director sends.
func (t *TestWorker) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent.Write(b)
}

// Received returns what was sent to the worker since the last call. The error is that of a malformed frame.
func (t *TestWorker) Received() ([]wire.Message, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []wire.Message
	frames := wire.NewReader(bytes.NewReader(t.sent.Bytes()), wire.MaxAttach)
	defer t.sent.Reset()
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		m, err := wire.Decode(f)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
}

// Report says something on the control stream. The error is that of a worker which broke the protocol.
func (t *TestWorker) Report(m wire.Message) error {
	err := t.readControl(wire.NewReader(bytes.NewReader(wire.Append(nil, m)), wire.MaxControl))
	if causeOf(err) == CauseClosed { // the end of what it said
		return nil
	}
	return err
}

// Say says something on a token stream, in frames that arrive at once. The error is as for Report.
func (t *TestWorker) Say(b []byte) error {
	var all batch
	defer t.flush(&all)
	frames := wire.NewReader(bytes.NewReader(b), wire.MaxControl)
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = t.receive(f, &all)
		}
		if err != nil {
			return err
		}
	}
}

// Lose loses the worker.
func (t *TestWorker) Lose(cause Cause) {
	err := lost(cause, nil)
	t.lose(err)
	t.down(err)
	t.pool.remove(t.worker)
}
