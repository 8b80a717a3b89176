package openai

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// body reads a request's body, up to what is allowed. Meanwhile the request counts as unfinished, and what there is of it as its
// client's.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	holder := s.shares.Join(nameOf(r))
	defer holder.Leave()
	if err := holder.Take(shares.Requests, 1); err != nil {
		return nil, err
	}
	defer holder.Give(shares.Requests, 1)
	most := s.maxBody()
	body, err := readAll(http.MaxBytesReader(w, r.Body, int64(most)), holder)
	var large *http.MaxBytesError
	var refused *wire.Error
	switch {
	case errors.As(err, &large):
		return nil, tooLarge(most)
	case errors.As(err, &refused):
		return nil, err
	case err != nil:
		return nil, &failure{status: http.StatusRequestTimeout, kind: invalidRequest, message: "the body did not come: " + wire.Text(err.Error())}
	}
	return body, nil
}

// readAll is io.ReadAll with memory that a holder has meanwhile. The error is that of the holder's refusal, or of the reader.
func readAll(from io.Reader, holder *shares.Holder) ([]byte, error) {
	const first = 4 << 10
	var b []byte
	taken := 0
	defer func() { holder.Give(shares.Bytes, taken) }()
	for {
		if len(b) == cap(b) {
			more := max(first, len(b))
			if err := holder.Take(shares.Bytes, more); err != nil {
				return nil, err
			}
			taken += more
			b = slices.Grow(b, more)
		}
		n, err := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// maxBody is how many bytes the body of a request may have.
func (s *Server) maxBody() int { return s.cfg.Settings.Now().Director.MaxBodyBytes }

func tooLarge(most int) error {
	return &failure{
		status: http.StatusRequestEntityTooLarge, kind: invalidRequest, code: "request_too_large",
		message: fmt.Sprintf("the body is longer than the %d bytes that this server allows (CONNECTION_SWAP_DIRECTOR_MAX_BODY_BYTES)", most),
	}
}

// generate answers a request for text.
func (s *Server) generate(w http.ResponseWriter, r *http.Request, of api) error {
	if s.draining.Load() {
		return errShutdown
	}
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	now := s.cfg.Settings.Now()
	ask, err := parse(of, body, now.Director.MaxTokens)
	if err != nil {
		return err
	}
	e := &exchange{ask: ask, named: ask.request.GetModel(), key: callerOf(r)}
	if err := s.check(e, r, now); err != nil {
		return err
	}
	e.identify()
	a := s.newAnswer(w, e, ask.stream, 0)
	a.live = true
	if err := s.begin(a, r, nameOf(r)); err != nil {
		return err
	}
	w.Header().Set("X-Connswap-Connection", e.connection)
	return a.serve(r.Context())
}

// check fills in what the request leaves open, or returns why it cannot be served.
func (s *Server) check(e *exchange, r *http.Request, now *settings.Snapshot) (err error) {
	q := e.ask.request
	q.Priority = keyOf(r).Priority(0)
	if q.Model, err = keyOf(r).Model(e.named, now.Own(e.named), s.cfg.Model); err != nil {
		return err
	}
	if q.Standby = r.Header.Get("X-Connswap-Standby") == "1"; q.Standby && !keyOf(r).MayStandBy() {
		return errStandby
	}
	if q.Continuity, err = continuityOf(r.Header.Get("X-Connswap-Continuity"), now.Continuity(q.GetModel(), verified)); err != nil {
		return err
	}
	if api := q.GetApi(); !wire.GeneratesText(api) && !s.cfg.Answers(q.GetModel(), api) {
		return &failure{
			status: http.StatusNotImplemented, kind: unsupported, code: "not_supported", param: "model",
			message: fmt.Sprintf("model %q does not answer %s", q.GetModel(), api),
		}
	}
	if err = e.ask.limit(now.MaxTokens(q.GetModel())); err != nil {
		return err
	}
	if trace := r.Header.Get("Traceparent"); printable(trace, longestTrace) {
		q.Trace = trace
	}
	e.told = !strings.EqualFold(r.Header.Get("X-Connswap-Outcome"), "off")
	e.resumable = s.cfg.Resume && e.ask.stream && (e.ask.api == responses || r.Header.Get("X-Connswap-Resume") == "1")
	e.inputs = e.ask.input
	if e.ask.earlier != "" {
		if err := s.follow(e); err != nil {
			return err
		}
	}
	promise, ok := s.cfg.Promise(q.GetModel(), q.GetContinuity())
	if !ok {
		return &failure{
			status: http.StatusConflict, kind: invalidRequest, code: "continuity_unavailable", retry: "false",
			message: fmt.Sprintf("no worker with model %q promises continuity %q; ask for less with x-connswap-continuity", q.GetModel(), classes[q.GetContinuity()]),
		}
	}
	e.promise = promise
	return nil
}

// begin has the stream of an exchange begin, with the answer's leg.
func (s *Server) begin(a *answer, r *http.Request, name string) error {
	if !s.live.enter() {
		return errShutdown
	}
	grant, err := keyOf(r).Admit()
	if err != nil {
		s.live.leave()
		return err
	}
	showLimits(a.w.Header(), keyOf(r))
	place, err := s.place(name, a.ask.request)
	if err != nil {
		grant.Close()
		s.live.leave()
		return err
	}
	e := a.exchange
	a.untimed(r)
	ctx, cancel := context.WithCancelCause(s.ending)
	e.cancel, e.over, e.release = cancel, make(chan struct{}), place.release
	e.number, e.protocol, e.client = s.numbers.Add(1), r.Proto, wire.Name(r.UserAgent())
	e.session = s.sessions.Create(session.Identity{
		Connection: e.number, ConnectionID: e.connection, StreamID: 1, Address: r.RemoteAddr, Holder: name, Resumable: e.resumable, Kept: true,
	}, e.ask.request, copies{place.memory, a.copies()}, open(&a.leg, s.clock, a.interrupt))
	grant.Meter(e.session.Usage)
	e.log = a.leg.log
	if e.resumable || e.ask.api == responses {
		s.kept.add(e)
	}
	s.live.add(e)
	go func() {
		defer s.live.leave()
		defer s.live.remove(e)
		defer grant.Close()
		defer s.kept.retain(e, s.cfg.Retention)
		defer close(e.over)
		defer place.end()
		defer s.sessions.Retire(e.session)
		defer cancel(nil)
		e.session.Run(ctx)
	}()
	return nil
}

// place is what a stream has of what the director divides among its clients.
type place struct {
	holder *shares.Holder
	memory *shares.Account
}

// place takes a place for the stream of a request, or returns why there is none.
func (s *Server) place(name string, q *wirepb.Request) (place, error) {
	holder := s.shares.Join(name)
	err := holder.Take(shares.Streams, 1)
	if err != nil {
		holder.Leave()
		return place{}, err
	}
	// A worker's link has a copy of the request, and an answer one of the text.
	memory, err := holder.Open(exchangeBytes + 2*len(q.GetBody()) + len(q.GetPrompt()))
	if err != nil {
		holder.Give(shares.Streams, 1)
		holder.Leave()
		return place{}, err
	}
	return place{holder, memory}, nil
}

// end gives back what the stream needs no more once it has ended.
func (p place) end() { p.holder.Give(shares.Streams, 1) }

// release gives back what it holds for as long as somebody may ask for it.
func (p place) release() {
	p.memory.Close()
	p.holder.Leave()
}

// copies takes for a log so many times what that takes: its answer has copies of the text.
type copies struct {
	*shares.Account
	n int
}

func (c copies) Grow(bytes int) bool { return c.Account.Grow(c.n * bytes) }

// copies is how many there are of the text at most, the log's among them.
func (a *answer) copies() int {
	switch {
	case a.ask.api == responses:
		return 6 // the encoder's, and those in four events at the end
	case a.events == nil:
		return 3 // the encoder's, and the document
	}
	return 1
}
