package api

import (
	"context"
	"errors"
	"sync"
	"time"
)

// watch ends an exchange with a server that takes too long for what it is at. One goroutine arms it at a time; end may be called by
// any.
type watch struct {
	caller context.Context // whose end is no fault of the server
	ctx    context.Context // of the exchange
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer // nil until it is armed first
	why   *Error
	head  bool // the head of the answer is there
}

func newWatch(caller context.Context) *watch {
	w := &watch{caller: caller}
	w.ctx, w.cancel = context.WithCancelCause(caller)
	return w
}

// arm ends the exchange with an error in a while, in place of what was armed before. 0 is for never.
func (w *watch) arm(limit time.Duration, why *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(limit, why)
}

func (w *watch) set(limit time.Duration, why *Error) {
	w.why = why
	switch {
	case limit <= 0:
		w.why = nil
		if w.timer != nil {
			w.timer.Stop()
		}
	case w.timer == nil:
		w.timer = time.AfterFunc(limit, w.expire)
	default:
		w.timer.Reset(limit)
	}
}

func (w *watch) disarm() { w.arm(0, nil) }

// armHead is arm while there is no head of an answer: net/http may say that a request is sent when its answer is being read already.
func (w *watch) armHead(limit time.Duration, why *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.head {
		w.set(limit, why)
	}
}

// hasHead disarms, for armHead as well.
func (w *watch) hasHead() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head = true
	w.set(0, nil)
}

func (w *watch) expire() {
	w.mu.Lock()
	why := w.why
	w.mu.Unlock()
	if why != nil {
		w.cancel(why)
	}
}

// end ends the exchange.
func (w *watch) end() {
	w.disarm()
	w.cancel(context.Canceled)
}

// fault returns why the exchange failed, which ended in err: the caller's end, a limit, or else that fault.
func (w *watch) fault(err error, otherwise Fault) error {
	if err := w.caller.Err(); err != nil {
		return err
	}
	cause := context.Cause(w.ctx)
	if why := (*Error)(nil); errors.As(cause, &why) {
		return why
	}
	if cause != nil {
		return context.Canceled
	}
	if isCertificate(err) {
		otherwise = Denied
	}
	return &Error{Fault: otherwise, Message: err.Error(), Err: err}
}
