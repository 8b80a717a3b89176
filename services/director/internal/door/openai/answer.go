package openai

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// answer is the response to one HTTP request, by which a client reads an exchange.
type answer struct {
	*exchange
	server  *Server
	w       http.ResponseWriter
	out     *http.ResponseController
	conn    net.Conn // that it goes over; nil for QUIC
	leg     *leg
	live    bool // the client reads the stream as it is made, for the first time
	decoder decoder
	events  *events // nil where the answer is one document
	whole   documenter

	beat    *time.Timer // sets due
	due     atomic.Bool // it may be time for a ping
	wroteAt time.Time   // when the client was last told something

	started bool      // the headers have been sent
	lastAt  time.Time // when the last chunk was read
	swapped bool      // and a swap since
	failed  *wire.Error
	swaps   int

	promised   uint32 // class of continuity, by the first worker; by all that have the model before there is one
	continuity uint32 // weakest class in which another worker went on
}

// documenter is an encoder of an answer that is one JSON document.
type documenter interface {
	encoder
	// document returns it, or why there is none.
	document() ([]byte, *wire.Error)
}

func (c *chatWhole) document() ([]byte, *wire.Error) { return c.body, c.err }

// newAnswer returns the answer for a client that has so many of the events already.
func (s *Server) newAnswer(w http.ResponseWriter, e *exchange, streamed bool, skip uint64) *answer {
	a := &answer{exchange: e, server: s, w: w, out: http.NewResponseController(w), promised: e.promise}
	switch {
	case streamed:
		a.events = &events{skip: skip, ids: e.resumable && e.ask.api != responses}
		if e.ask.api == responses {
			a.decoder.to = newResponse(e, a.events)
		} else {
			a.decoder.to = newChatStream(e, a.events)
		}
	case e.ask.api == responses:
		a.whole = newResponse(e, nil)
		a.decoder.to = a.whole
	case !wire.GeneratesText(string(e.ask.api)):
		a.whole = &passed{}
		a.decoder.to = a.whole
	default:
		a.whole = newChatWhole(e)
		a.decoder.to = a.whole
	}
	a.decoder.notice = a.notice
	a.decoder.failed = func(err *wire.Error) { a.failed = err }
	return a
}

// notice takes what the log tells beside chunks.
func (a *answer) notice(m wire.Message) {
	switch m := m.(type) {
	case *wirepb.Assigned:
		worker := m.GetWorker()
		a.worker.Store(&worker)
		a.promised = m.GetContinuity()
	case *wirepb.Swapped:
		a.swapped = true
		a.swaps++
	case *wirepb.Done: // which knows also of swaps behind text that was held back, and is not shown
		a.swaps, a.continuity = int(m.GetSwaps()), m.GetContinuity()
		if a.swapped { // all that followed the swap has come at once
			a.measure()
		}
	}
}

// Why an answer breaks off, so that its client does not take what it has for all there is.
var (
	errLeft   = errors.New("the client has gone")
	errBroken = errors.New("the answer breaks off")
)

// serve writes the stream to the client, to its end. The error is errBroken, or nil for an answer that says itself how it ended.
func (a *answer) serve(ctx context.Context) error {
	defer a.leg.leave()
	_ = a.out.SetReadDeadline(time.Time{}) // it was for the request, and would end the answer
	a.wroteAt = time.Now()
	a.beat = time.AfterFunc(a.server.cfg.Heartbeat, func() { a.due.Store(true); a.leg.Push() })
	defer a.beat.Stop()
	defer context.AfterFunc(ctx, a.leg.Push)()
	for {
		over, err := a.pass()
		if over {
			return nil
		}
		if err == nil {
			err = a.await(ctx)
		}
		switch {
		case errors.Is(err, errEnded):
			if over, err = a.pass(); err == nil && !over { // what was put into the log before
				err = a.breakOff()
			}
			if err != nil {
				return errBroken
			}
			return nil
		case err != nil:
			a.leave(err)
			return errBroken
		}
	}
}

// errEnded says that the stream was ended from here.
var errEnded = errors.New("the leg was closed")

// await waits until there may be something new, and shows the client meanwhile that somebody is there. Whatever happens wakes it
// through one channel: waiting for several, and setting a timer anew, would cost more for each token than its encoding does.
func (a *answer) await(ctx context.Context) error {
	<-a.leg.wake
	switch {
	case a.leg.ended():
		return errEnded
	case ctx.Err() != nil:
		return errLeft // or it has closed the half of the connection on which it writes: nobody can tell
	case !a.due.Load():
		return nil
	}
	a.due.Store(false)
	rest := a.server.cfg.Heartbeat - time.Since(a.wroteAt)
	if rest <= 0 {
		if err := a.ping(); err != nil {
			return err
		}
		rest = a.server.cfg.Heartbeat
	}
	a.beat.Reset(rest)
	return nil
}

// leave says that the client has gone. Whoever may come back is waited for.
func (a *answer) leave(err error) {
	a.leg.tell(session.ClientLeft{Cancelled: !a.resumable, Err: err})
}

// pass hands on what is new, and reports whether that was the last of it.
func (a *answer) pass() (over bool, err error) {
	for {
		frames := a.leg.read()
		if len(frames) == 0 {
			return false, nil
		}
		before := a.decoder.tokens
		over = a.decoder.read(frames)
		if a.decoder.tokens > before {
			a.measure()
		}
		if err = a.leg.write(func() error { return a.flush(over) }); err != nil || over {
			return over, err
		}
	}
}

// measure takes note of how long the client had to wait at a swap.
func (a *answer) measure() {
	if !a.live {
		return
	}
	now := time.Now()
	if gap := int64(now.Sub(a.lastAt)); a.swapped && !a.lastAt.IsZero() && gap > a.longest.Load() {
		a.longest.Store(gap)
	}
	a.lastAt, a.swapped = now, false
}

// flush writes what has been encoded.
func (a *answer) flush(over bool) error {
	if a.events == nil {
		if !over {
			return nil
		}
		body, failed := a.whole.document()
		if failed != nil {
			a.refuse(failureOf(failed))
			return nil
		}
		a.start("application/json")
		return a.write(append(body, '\n'))
	}
	if a.failed != nil && !a.started && a.decoder.tokens == 0 { // the status can still say it
		a.refuse(failureOf(a.failed))
		return nil
	}
	if len(a.events.buf) == 0 {
		return nil
	}
	a.start("text/event-stream")
	err := a.write(a.events.buf)
	a.events.buf = a.events.buf[:0]
	if over {
		a.trailers()
	}
	return err
}

// breakOff ends the answer of a stream that was ended from here, and has no last frame: the client is told.
func (a *answer) breakOff() error {
	a.failed = wire.AsError(a.leg.err, wire.CodeCancelled)
	if a.server.draining.Load() {
		a.failed = wire.Errorf(wire.CodeShutdown, "the server is shutting down")
	}
	a.decoder.to.fail(a.failed)
	if a.events == nil {
		a.refuse(failureOf(a.failed))
		return nil
	}
	return a.flush(true)
}

// refuse answers with an error, if nothing was sent yet.
func (a *answer) refuse(f *failure) {
	if !a.started {
		a.started = true
		a.server.cfg.Answered(string(a.ask.api), f.status)
		f.write(a.w)
	}
}

// start sends the headers, once.
func (a *answer) start(contentType string) {
	if a.started {
		return
	}
	a.started = true
	h := a.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // or nginx would collect the answer
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Connswap-Continuity", wire.Continuity(a.promised))
	if worker := a.worker.Load(); worker != nil {
		h.Set("X-Connswap-Worker", *worker)
	}
	if a.told && a.events != nil {
		h.Set("Trailer", "X-Connswap-Swaps, X-Connswap-Gap-Ms, X-Connswap-Resumed")
	} else if a.told {
		a.trailers()
	}
	a.server.cfg.Answered(string(a.ask.api), http.StatusOK)
	a.w.WriteHeader(http.StatusOK)
}

// trailers say what happened behind.
func (a *answer) trailers() {
	if a.told {
		a.w.Header().Set("X-Connswap-Swaps", strconv.Itoa(a.swaps))
		a.w.Header().Set("X-Connswap-Gap-Ms", strconv.FormatFloat(a.gapMS(), 'f', -1, 64))
		a.w.Header().Set("X-Connswap-Resumed", wire.Continuity(a.continuity))
	}
}

// ping shows the client of a stream that somebody is there. Nothing else can go wrong in HTTP's own way after that.
func (a *answer) ping() error {
	if a.events == nil {
		return nil // a document cannot begin before it is there
	}
	a.start("text/event-stream")
	return a.leg.watched(func() error { return a.write([]byte(ping)) })
}

func (a *answer) write(b []byte) error {
	if _, err := a.w.Write(b); err != nil {
		return err
	}
	a.wroteAt = time.Now()
	return a.out.Flush()
}

// untimed lifts the bound on how long the answer may take: from here on its leg watches whether the client reads it.
func (a *answer) untimed(r *http.Request) {
	a.conn, _ = r.Context().Value(connKey{}).(net.Conn)
	_ = a.out.SetWriteDeadline(time.Time{})
}

// interrupt makes writes end that the client holds up. HTTP/2 cannot end a stream while nothing of what it wrote before is read:
// then the connection ends.
func (a *answer) interrupt(within time.Duration) {
	_ = a.out.SetWriteDeadline(time.Now().Add(within)) // fails for an answer that has ended
	if a.conn == nil {
		return
	}
	time.AfterFunc(within+lastWords, func() {
		select {
		case <-a.leg.left:
		default:
			_ = a.conn.Close()
		}
	})
}
