package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/peer"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// handler answers a request, or returns why not.
type handler func(w http.ResponseWriter, r *http.Request) error

// routes are all that is answered.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	open := func(pattern string, h handler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			switch err := h(w, r); {
			case errors.Is(err, errBroken):
				panic(http.ErrAbortHandler) //nolint:forbidigo // that is how net/http is told to break off an answer
			case err != nil:
				s.refuse(w, r, err)
			}
		})
	}
	handle := func(pattern string, h handler) { open(pattern, s.withKey(h)) }
	apis := map[string]api{"chat/completions": chat, "completions": completions, "responses": responses}
	for _, name := range wire.APIs {
		apis[name] = api(name)
	}
	for path, of := range apis {
		handle("POST /v1/"+path, func(w http.ResponseWriter, r *http.Request) error {
			err := s.generate(w, r, of)
			if err != nil && !errors.Is(err, errBroken) {
				s.cfg.Answered(string(of), failureOf(err).status)
			}
			return err
		})
	}
	handle("GET /v1/models", s.listModels)
	handle("GET /v1/models/{id...}", s.showModel)
	handle("GET /v1/responses/{id}", s.showResponse)
	handle("DELETE /v1/responses/{id}", s.deleteResponse)
	handle("POST /v1/responses/{id}/cancel", s.cancelResponse)
	handle("GET /v1/responses/{id}/input_items", s.listInput)
	handle("GET /v1/streams/{id}", s.resumeStream)
	handle("DELETE /v1/streams/{id}", s.deleteStream)
	open("GET /health", s.health)
	handle("/", s.unknown(mux))
	return s.common(mux)
}

// errShutdown refuses what comes while the director drains.
var errShutdown = wire.Errorf(wire.CodeShutdown, "the server is shutting down, and takes nothing new")

// notServedHere are end points of OpenAI's that clients may ask for, and that are not served.
var notServedHere = []string{
	"assistants", "audio", "batches", "chat", "containers", "conversations", "evals", "files", "fine_tuning", "images", "organization", "realtime", "responses", "threads", "uploads", "vector_stores", "videos",
}

// unknown answers for whatever is not served: by name, in OpenAI's shape.
func (s *Server) unknown(mux *http.ServeMux) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		path := wire.Text(r.URL.Path)
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" && method != r.Method {
				w.Header().Add("Allow", method)
			}
		}
		if allow := w.Header().Values("Allow"); len(allow) > 0 {
			return &failure{
				status: http.StatusMethodNotAllowed, kind: invalidRequest, code: "method_not_allowed",
				message: fmt.Sprintf("%s cannot be asked for with %s; use %s", path, wire.Text(r.Method), strings.Join(allow, " or ")),
			}
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
		if strings.HasPrefix(r.URL.Path, "/v1/") && slices.Contains(notServedHere, name) {
			return &failure{
				status: http.StatusNotImplemented, kind: unsupported, code: "not_supported",
				message: fmt.Sprintf("%s is not served here; chat/completions, completions, responses and models are", path),
			}
		}
		return &failure{status: http.StatusNotFound, kind: invalidRequest, code: "unknown_url", message: "there is no " + path + " here"}
	}
}

// Longest values of headers that are taken from a client, in bytes.
const (
	longestID    = 128
	longestTrace = 64
)

// common answers with the headers that every answer has.
func (s *Server) common(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		id := r.Header.Get("X-Request-Id")
		if id == "" || !printable(id, longestID) {
			id = "req_" + identity.NewID() + identity.NewID()
		}
		h.Set("X-Request-Id", id)
		if trace := r.Header.Get("Traceparent"); trace != "" && printable(trace, longestTrace) {
			h.Set("Traceparent", trace)
		}
		if there := s.altSvc.Load(); there != nil && r.ProtoMajor < 3 {
			h.Set("Alt-Svc", *there)
		}
		out := http.NewResponseController(w)
		limit := func() { _ = out.SetWriteDeadline(time.Now().Add(answerTimeout)) }
		limit()
		defer limit() // of what is left to be written
		if s.allow(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// preflight is how long a browser may remember what it was allowed, in seconds.
const preflight = "600"

// allow says to a browser what scripts of the page that asks may do (CORS, Fetch §3.2). It reports false for a question that is
// answered with that.
func (s *Server) allow(w http.ResponseWriter, r *http.Request) (more bool) {
	origin := r.Header.Get("Origin")
	if origin == "" || len(s.cfg.Origins) == 0 {
		return true
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	if slices.Contains(s.cfg.Origins, "*") || slices.Contains(s.cfg.Origins, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "*")
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return true
	}
	if h.Get("Access-Control-Allow-Origin") != "" {
		h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
		h.Set("Access-Control-Allow-Headers", cmp.Or(r.Header.Get("Access-Control-Request-Headers"), "*"))
		h.Set("Access-Control-Max-Age", preflight)
	}
	w.WriteHeader(http.StatusNoContent)
	return false
}

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	f := failureOf(err)
	if f.status == http.StatusTooManyRequests {
		s.cfg.Events.Publish(event.LimitHit{Code: string(wire.CodeLimit), Message: f.message})
	}
	s.log.Info("request refused", zap.String("path", wire.Text(r.URL.Path)), zap.Int("status", f.status), zap.String("reason", f.message),
		telemetry.From(r.RemoteAddr))
	f.write(w)
}

// holderOf says who a client is where things are divided.
func holderOf(addr net.Addr) string { return peer.Name(peer.Of(addr)) }

// clientOf is holderOf for a request.
func clientOf(r *http.Request) string {
	addr, err := net.ResolveTCPAddr("tcp", r.RemoteAddr) // a literal: nothing is looked up
	if err != nil {
		return holderOf(nil)
	}
	return holderOf(addr)
}

// nameOf says whose a request is where things are divided: its key's, else its client's.
func nameOf(r *http.Request) string { return keyOf(r).Holder(clientOf(r)) }

// body reads a request's body, up to what is allowed. Meanwhile the request counts as unfinished, and what there is of it as its
// client's.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	holder := s.shares.Join(nameOf(r))
	defer holder.Leave()
	if err := holder.Take(shares.Requests, 1); err != nil {
		return nil, err
	}
	defer holder.Give(shares.Requests, 1)
	body, err := readAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxBody)), holder)
	var large *http.MaxBytesError
	var refused *wire.Error
	switch {
	case errors.As(err, &large):
		return nil, s.tooLarge()
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

func (s *Server) tooLarge() error {
	return &failure{
		status: http.StatusRequestEntityTooLarge, kind: invalidRequest, code: "request_too_large",
		message: fmt.Sprintf("the body is longer than the %d bytes that this server allows (CONNECTION_SWAP_DIRECTOR_MAX_BODY_BYTES)", s.cfg.MaxBody),
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
	ask, err := parse(of, body, s.cfg.MaxTokens)
	if err != nil {
		return err
	}
	e := &exchange{ask: ask, key: callerOf(r)}
	if err := s.check(e, r); err != nil {
		return err
	}
	e.identify()
	a := s.newAnswer(w, e, ask.stream, 0)
	a.live = true
	if err := s.begin(a, r, nameOf(r)); err != nil {
		return err
	}
	w.Header().Set("X-Connswap-Connection", e.connection)
	w.Header().Set("X-Connswap-Continuity", classes[e.promise])
	return a.serve(r.Context())
}

// check fills in what the request leaves open, or returns why it cannot be served.
func (s *Server) check(e *exchange, r *http.Request) (err error) {
	q := e.ask.request
	if q.Continuity, err = continuityOf(r.Header.Get("X-Connswap-Continuity")); err != nil {
		return err
	}
	q.Priority = keyOf(r).Priority(0)
	if q.Model, err = keyOf(r).Model(q.GetModel(), s.cfg.Model); err != nil {
		return err
	}
	if api := q.GetApi(); !wire.GeneratesText(api) && !s.cfg.Answers(q.GetModel(), api) {
		return &failure{
			status: http.StatusNotImplemented, kind: unsupported, code: "not_supported", param: "model",
			message: fmt.Sprintf("model %q does not answer %s", q.GetModel(), api),
		}
	}
	if q.GetMaxTokens() == 0 {
		q.MaxTokens = uint32(s.cfg.MaxTokens)
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

// health answers whether streams are served.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	if s.draining.Load() {
		return &failure{status: http.StatusServiceUnavailable, kind: serverError, code: "unavailable", message: "the server is shutting down", after: busyAfter}
	}
	return writeJSON(w, map[string]string{"status": "ok"})
}

// listModels lists the models that there are, and that the caller may use.
func (s *Server) listModels(w http.ResponseWriter, r *http.Request) error {
	all := []any{}
	for _, name := range s.cfg.Models() {
		if keyOf(r).MayUse(name) {
			all = append(all, s.model(name))
		}
	}
	return writeJSON(w, map[string]any{"object": "list", "data": all})
}

// model is a model as it is shown. created is when the director began: workers come and go.
func (s *Server) model(name string) map[string]any {
	return map[string]any{"id": name, "object": "model", "created": started.Unix(), "owned_by": "connswap"}
}

var started = time.Now()

func (s *Server) showModel(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("id")
	if !slices.Contains(s.cfg.Models(), name) || !keyOf(r).MayUse(name) {
		if _, err := keyOf(r).Model(name, s.cfg.Model); err != nil {
			return err
		}
		return wire.Errorf(wire.CodeModel, "no worker has a model %q", wire.Text(name))
	}
	return writeJSON(w, s.model(name))
}

// writeJSON answers with a document.
func writeJSON(w http.ResponseWriter, document any) error {
	b, err := json.Marshal(document)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	_, _ = w.Write(append(b, '\n')) // whoever is gone is not told
	return nil
}
