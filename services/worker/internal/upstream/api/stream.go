package api

import (
	"errors"
	"io"
	"mime"
	"sync"
	"sync/atomic"
	"time"
)

// drainTimeout is how long the end of a complete answer is waited for, which lets its connection be used again.
const drainTimeout = 10 * time.Millisecond

// usageTimeout is how long what follows the last reason to finish is waited for: the text is complete without it.
const usageTimeout = time.Second

// Stream is an answer on its way. One goroutine uses it, beside Close.
type Stream struct {
	answer  *answer
	events  *eventReader
	decoder decoder
	counts  *atomic.Bool // the server was seen to tell usages
	limit   limit        // for what comes next
	silence limit        // for what comes after the first chunk
	deltas  []Delta      // that Next has not returned yet
	next    int
	err     error // of Next, once there are no deltas
	close   func()
}

// newStream returns what decodes an answer, whose first chunk has to come within a limit.
func newStream(a *answer, d decoder, counts *atomic.Bool, first, silence time.Duration) *Stream {
	return &Stream{
		answer: a, events: newEventReader(a.body), decoder: d, counts: counts, limit: limitOf(first), silence: limitOf(silence),
		close: sync.OnceFunc(a.close),
	}
}

// isDocument reports whether an answer is one document rather than a stream: of a server that does not stream, or has an error to say.
func (a *answer) isDocument() bool {
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// Next returns the next piece of the answer. The last error of a complete one is an engine.Finish, with the usage as the server says
// it; any other is an *Error, or that of the context. An answer that ends without a reason to finish is an *Error.
func (s *Stream) Next() (Delta, error) {
	for s.next == len(s.deltas) {
		if s.err != nil {
			return Delta{}, s.err
		}
		s.deltas, s.next = s.deltas[:0], 0
		if s.err = s.read(); s.err != nil {
			s.Close()
		}
	}
	delta := s.deltas[s.next]
	s.deltas[s.next] = Delta{}
	s.next++
	return delta, nil
}

// read reads until there are deltas, or until the end, which is the error.
func (s *Stream) read() error {
	s.wait()
	defer s.answer.watch.disarm()
	for {
		data, err := s.events.next()
		if err != nil {
			return s.ended(err)
		}
		deltas, progress, err := s.decoder.event(data, s.deltas)
		if s.deltas = deltas; err != nil {
			return err
		}
		if s.decoder.learned().counted && !s.counts.Load() {
			s.counts.Store(true)
		}
		if s.decoder.learned().done {
			return s.drain()
		}
		if progress {
			s.limit = s.silence
		}
		if len(s.deltas) > 0 {
			return nil
		}
		if progress {
			s.wait()
		}
	}
}

// wait bounds how long the next event may take.
func (s *Stream) wait() {
	l := s.limit
	if _, ok := s.decoder.outcome(); ok && (l.time == 0 || l.time > usageTimeout) {
		l.time = usageTimeout
	}
	s.answer.watch.arm(l.time, l.why)
}

// limit is how long something may take, and the error if it takes longer.
type limit struct {
	time time.Duration
	why  *Error
}

func limitOf(d time.Duration) limit { return limit{d, silent("nothing came for " + d.String())} }

// ended returns the error of a stream that cannot be read on, because of err. If the server has said why the text is over, then it is
// complete; but for the usage, of a server that tells one.
func (s *Stream) ended(err error) error {
	if caller := s.answer.watch.caller.Err(); caller != nil {
		return caller
	}
	finish, complete := s.decoder.outcome()
	switch {
	case complete && (s.decoder.learned().counted || !s.counts.Load()):
		return finish
	case complete:
		return &Error{Fault: Broken, Message: "the text is over, and its usage did not come", Err: err, Complete: &finish}
	case errors.Is(err, io.EOF):
		return broken("the stream ended without a reason to finish")
	case errors.Is(err, errEventTooLarge):
		return &Error{Fault: Broken, Message: err.Error(), Err: err}
	}
	return s.answer.watch.fault(err, Broken)
}

// drain reads what a server sends behind the last event: the end of the body.
func (s *Stream) drain() error {
	s.answer.watch.arm(drainTimeout, silent("the answer did not end"))
	rest := [512]byte{}
	for range 8 {
		if _, err := s.answer.body.Read(rest[:]); err != nil {
			break
		}
	}
	if finish, ok := s.decoder.outcome(); ok {
		return finish
	}
	return broken("the stream ended without a reason to finish")
}

// PromptTokens returns how many tokens the prompt has, if the server has said so by now; else 0.
func (s *Stream) PromptTokens() int { return s.decoder.learned().prompt }

// Close ends the stream, and has the server abort it. It may be called at any time, by any goroutine, more than once.
func (s *Stream) Close() { s.close() }
