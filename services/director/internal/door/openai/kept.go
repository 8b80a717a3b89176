package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/wire"
)

// kept are the exchanges that a client may ask for again: those that run, and those that have ended lately. It is safe for
// concurrent use.
type kept struct {
	mu     sync.Mutex
	byID   map[string]*exchange
	closed bool // nothing is kept any more
}

func (k *kept) add(e *exchange) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byID[e.id] = e
}

// get returns an exchange of one of the APIs, if it is the caller's.
func (k *kept) get(id, key string, apis ...api) (*exchange, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.byID[id]
	if e == nil || e.key != key || !slices.Contains(apis, e.ask.api) {
		return nil, &failure{
			status: http.StatusNotFound, kind: invalidRequest, code: "not_found",
			message: fmt.Sprintf("there is no %.80q here, or no more", wire.Text(id)),
		}
	}
	return e, nil
}

// retain keeps an exchange that has ended for a while, if it is to be kept at all.
func (k *kept) retain(e *exchange, retention time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID[e.id] != e || k.closed {
		delete(k.byID, e.id)
		e.release()
		return
	}
	e.expiry = time.AfterFunc(retention, func() { k.forget(e) })
}

// forget gives up an exchange. What it holds is given back once it has ended.
func (k *kept) forget(e *exchange) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID[e.id] == e && e.expiry != nil {
		e.expiry.Stop()
		e.release()
	}
	delete(k.byID, e.id)
}

// close gives up all, now and in future.
func (k *kept) close() {
	k.mu.Lock()
	k.closed = true
	all := make([]*exchange, 0, len(k.byID))
	for _, e := range k.byID {
		all = append(all, e)
	}
	k.mu.Unlock()
	for _, e := range all {
		k.forget(e)
	}
}

// showResponse answers with a response as it stands, or goes on with its stream.
func (s *Server) showResponse(w http.ResponseWriter, r *http.Request) error {
	e, err := s.kept.get(r.PathValue("id"), callerOf(r), responses)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	switch stream, err := s.streamed(w, r); {
	case err != nil:
		return err
	case !stream:
		return writeJSON(w, s.stand(e))
	}
	skip := uint64(0)
	if after := query.Get("starting_after"); after != "" {
		n, err := strconv.ParseUint(after, 10, 62)
		if err != nil {
			return invalid("starting_after", "starting_after: want the sequence_number of an event")
		}
		skip = n + 1
	}
	return s.resume(w, r, e, skip)
}

// streamed reports whether a response is asked for as a stream: OpenAI's SDK for Go says that in a body, all others in the query.
func (s *Server) streamed(w http.ResponseWriter, r *http.Request) (bool, error) {
	asked := struct {
		Stream bool `json:"stream"`
	}{r.URL.Query().Get("stream") == "true"}
	body, err := s.body(w, r)
	if err == nil && len(body) > 0 && json.Unmarshal(body, &asked) != nil {
		err = invalid("stream", "stream: want true or false")
	}
	return asked.Stream, err
}

// resumeStream goes on with a stream of chunks, behind the event that the client has last.
func (s *Server) resumeStream(w http.ResponseWriter, r *http.Request) error {
	e, err := s.kept.get(r.PathValue("id"), callerOf(r), chat, completions)
	if err != nil {
		return err
	}
	skip := uint64(0)
	if last := r.Header.Get("Last-Event-Id"); last != "" {
		if skip, err = strconv.ParseUint(last, 10, 63); err != nil {
			return invalid("", "last-event-id: want the id of an event")
		}
	}
	return s.resume(w, r, e, skip)
}

// resume answers with what follows the events that the client has. Whoever read the stream before is told that it goes on
// elsewhere.
func (s *Server) resume(w http.ResponseWriter, r *http.Request, e *exchange, skip uint64) error {
	if there := s.count(e); skip > there {
		return &failure{
			status: http.StatusConflict, kind: invalidRequest, code: string(wire.CodeResumeAhead), retry: "false",
			message: fmt.Sprintf("the stream has %d events so far, and was asked for what follows %d", there, skip),
		}
	}
	if _, err := s.body(w, r); err != nil { // there is none, but who says so has to send one
		return err
	}
	a := s.newAnswer(w, e, true, skip)
	if !e.resumable && !e.ended() {
		return wire.Errorf(wire.CodeConflict, "the stream is being answered to whoever asked for it")
	}
	a.untimed(r)
	if !e.resumable || !e.session.Resume(open(&a.leg, s.clock, a.interrupt)) {
		<-e.over // which is soon, where the session takes nobody any more
		a.leg = s.afterwards(e)
	}
	w.Header().Set("X-Connswap-Connection", e.connection)
	return a.serve(r.Context())
}

// ended reports whether the stream is over.
func (e *exchange) ended() bool {
	select {
	case <-e.over:
		return true
	default:
		return false
	}
}

// afterwards returns a leg to the log of a stream that has ended: nothing comes any more, and there is nobody to tell.
func (s *Server) afterwards(e *exchange) *leg {
	g := newLeg(e.log, s.clock, func(any) {}, func(time.Duration) {})
	g.err = wire.Errorf(wire.CodeCancelled, "the stream was ended")
	close(g.closed)
	g.Push()
	return g
}

// readAll has an encoder take what there is of a stream.
func (e *exchange) readAll(d *decoder) {
	for at := (stream.Cursor{}); ; {
		frames, next := e.log.Read(at, batchMost)
		if len(frames) == 0 {
			return
		}
		d.read(frames)
		at = next
	}
}

// count returns how many events there are of a stream.
func (s *Server) count(e *exchange) uint64 {
	a := s.newAnswer(nil, e, true, 1<<63)
	e.readAll(&a.decoder)
	return a.events.count
}

// stand is a response as it is now.
func (s *Server) stand(e *exchange) any {
	ended := e.ended()
	state := e.session.State()
	r := newResponse(e, nil)
	e.readAll(&decoder{to: r})
	switch {
	case r.body != nil:
		return json.RawMessage(r.body)
	case r.err != nil:
		return r.failed(r.err)
	case ended && state == session.Failed:
		return r.failed(wire.Errorf(wire.CodeInternal, "the stream was ended"))
	case ended:
		return r.object("cancelled", nil)
	}
	return r.object("in_progress", nil)
}

// deleteResponse forgets a response, and stops it.
func (s *Server) deleteResponse(w http.ResponseWriter, r *http.Request) error {
	return s.delete(w, r, "response.deleted", responses)
}

// deleteStream does so with a stream of chunks.
func (s *Server) deleteStream(w http.ResponseWriter, r *http.Request) error {
	return s.delete(w, r, "stream.deleted", chat, completions)
}

func (s *Server) delete(w http.ResponseWriter, r *http.Request, object string, apis ...api) error {
	e, err := s.kept.get(r.PathValue("id"), callerOf(r), apis...)
	if err != nil {
		return err
	}
	s.kept.forget(e)
	e.cancel(errDeleted)
	return writeJSON(w, map[string]any{"id": e.id, "object": object, "deleted": true})
}

// errDeleted ends a stream that its client has deleted, or cancelled.
var errDeleted = wire.Errorf(wire.CodeCancelled, "cancelled by the client")

// cancelResponse stops a response, which can still be asked for.
func (s *Server) cancelResponse(w http.ResponseWriter, r *http.Request) error {
	e, err := s.kept.get(r.PathValue("id"), callerOf(r), responses)
	if err != nil {
		return err
	}
	e.cancel(errDeleted)
	select {
	case <-e.over:
	case <-r.Context().Done():
	}
	return writeJSON(w, s.stand(e))
}

// listInput lists what a response was asked with, also what came from the ones before it.
func (s *Server) listInput(w http.ResponseWriter, r *http.Request) error {
	e, err := s.kept.get(r.PathValue("id"), callerOf(r), responses)
	if err != nil {
		return err
	}
	items := make([]map[string]json.RawMessage, len(e.inputs))
	ids := make([]string, len(e.inputs))
	for i, raw := range e.inputs {
		_ = json.Unmarshal(raw, &items[i]) // it was parsed before
		if items[i] == nil {
			items[i] = map[string]json.RawMessage{}
		}
		ids[i] = fmt.Sprintf("in_%s%04x", e.suffix, i)
		id, _ := json.Marshal(ids[i]) // a string always can be
		items[i]["id"] = id
	}
	if r.URL.Query().Get("order") != "asc" { // the newest first, as OpenAI lists them
		slices.Reverse(items)
		slices.Reverse(ids)
	}
	list := map[string]any{"object": "list", "data": items, "has_more": false, "first_id": nil, "last_id": nil}
	if len(ids) > 0 {
		list["first_id"], list["last_id"] = ids[0], ids[len(ids)-1]
	}
	return writeJSON(w, list)
}

// follow puts what an earlier response was asked with, and what it said, before what this one is asked with.
func (s *Server) follow(e *exchange) error {
	earlier, err := s.kept.get(e.ask.earlier, e.key, responses)
	if err != nil {
		return &failure{
			status: http.StatusNotFound, kind: invalidRequest, code: "previous_response_not_found", param: "previous_response_id",
			message: fmt.Sprintf("there is no response %.80q here, or no more: they are kept for %v", wire.Text(e.ask.earlier), s.cfg.Retention),
		}
	}
	said := newResponse(earlier, nil)
	earlier.readAll(&decoder{to: said})
	if said.body == nil {
		return &failure{
			status: http.StatusConflict, kind: invalidRequest, code: "previous_response_incomplete", param: "previous_response_id", retry: "false",
			message: fmt.Sprintf("response %s is not complete", earlier.id),
		}
	}
	e.inputs = slices.Clone(earlier.inputs)
	for _, item := range said.output() {
		raw, _ := json.Marshal(item) // made here
		e.inputs = append(e.inputs, raw)
	}
	e.inputs = append(e.inputs, e.ask.input...)
	fields := map[string]json.RawMessage{}
	for name, raw := range e.ask.fields {
		if name != "previous_response_id" {
			fields[name] = raw
		}
	}
	if fields["input"], err = json.Marshal(e.inputs); err == nil {
		e.ask.request.Body, err = json.Marshal(fields)
	}
	if most := s.maxBody(); err == nil && len(e.ask.request.GetBody()) > most {
		return tooLarge(most)
	}
	return err
}
