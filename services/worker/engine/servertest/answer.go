package servertest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// text answers requests for text.
func (s *Server) text(form form) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		raw := rawBody(r)
		b := &body{}
		if err := json.Unmarshal(raw, b); err != nil {
			s.refuse(w, badRequest(err.Error()))
			return
		}
		faults := s.script.of(Request{
			Method: r.Method, Path: r.URL.Path, Header: r.Header, Body: raw, When: time.Now(), Continues: b.continues(),
		})
		if s.refused(w, r, faults, b) {
			return
		}
		j, failure := s.newJob(form, b)
		if failure != nil {
			s.refuse(w, failure)
			return
		}
		j.faults = faults
		if b.Stream {
			s.answerStream(r.Context(), w, j)
		} else {
			s.answerWhole(r.Context(), w, j)
		}
	}
}

// refused carries out the faults that come before anything else.
func (s *Server) refused(w http.ResponseWriter, r *http.Request, faults []Fault, b *body) bool {
	for _, fault := range faults {
		var f *failure
		switch fault.Kind {
		case TooManyRequests, Unavailable:
			if f = tooMany(); fault.Kind == Unavailable {
				f = unavailable("Service temporarily unavailable")
			}
			if fault.Delay > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int((fault.Delay+time.Second-1)/time.Second)))
			}
		case InternalError:
			f = internal()
		case ContextTooLong:
			f = tooLong(len(b.Prompt)+s.options.ContextLength, s.options.ContextLength)
		case FilteredPrompt:
			f = filtered()
		case RefusePrefill:
			f = badRequest("Assistant response prefill is not supported.")
		case ResetBefore:
			reset(w)
			return true
		case SilentBefore:
			<-r.Context().Done()
			return true
		default:
			continue
		}
		s.refuse(w, f)
		return true
	}
	return false
}

// refuse answers with an error in the kind's form.
func (s *Server) refuse(w http.ResponseWriter, f *failure) {
	answerJSON(w, f.status, s.dialect.failure(f))
}

// answerJSON answers with a whole body. There is nobody to tell if it does not arrive.
func answerJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// answerStream answers with a stream of events.
func (s *Server) answerStream(ctx context.Context, w http.ResponseWriter, j *job) {
	t := s.newStream(ctx, w, j)
	defer func() { s.load.ended(t.sent) }()
	began := make([]bool, j.texts)
	used, err := s.generate(ctx, j, t.wait, func(p piece) error {
		if !began[p.text] {
			began[p.text] = true
			if err := t.sendAll(s.dialect.head(j, p.text)); err != nil {
				return err
			}
		}
		return t.sendAll(s.dialect.events(j, &p))
	})
	if finish := (finishError{}); errors.As(err, &finish) {
		err = t.finish(finish.reason)
	}
	if err != nil {
		return
	}
	t.end(used)
}

// finish sends a finish that a fault has asked for.
func (t *stream) finish(reason string) error {
	t.dropFinishes()
	for text := range t.job.texts {
		if err := t.sendAll(t.server.dialect.events(t.job, &piece{text: text, finish: reason})); err != nil {
			return err
		}
	}
	return nil
}

// dropFinishes makes nothing finish any more: it has.
func (t *stream) dropFinishes() {
	t.job.faults = slices.DeleteFunc(t.job.faults, func(f Fault) bool { return f.Kind == Aborted || f.Kind == ContentFilter })
}

// end sends what comes after the last text. Whether it arrives is the client's to see.
func (t *stream) end(used usage) {
	t.dropFinishes()
	if t.sendAll(t.server.dialect.tail(t.job, used)) != nil {
		return
	}
	if _, missing := has(t.job.faults, NoDone); !missing && t.server.dialect.done(t.job) {
		_ = t.done()
	}
}

func (t *stream) sendAll(events []object) error {
	for _, event := range events {
		if err := t.send(event); err != nil {
			return err
		}
	}
	return nil
}

// answerWhole answers without a stream.
func (s *Server) answerWhole(ctx context.Context, w http.ResponseWriter, j *job) {
	texts := make([]wholeText, j.texts)
	wait := func(d time.Duration) error { return s.sleep(ctx, d) }
	used, err := s.generate(ctx, j, wait, func(p piece) error {
		texts[p.text].add(&p)
		return nil
	})
	if err != nil {
		return // the client has left
	}
	for _, fault := range j.faults {
		if fault.At == 0 && s.sufferWhole(ctx, w, fault, texts) {
			return
		}
	}
	whole := s.dialect.whole(j, texts, used)
	applyToEvent(j.faults, whole)
	if fault, cut := has(j.faults, HalfEvent); cut && fault.At == 0 {
		data, _ := json.Marshal(whole) // of plain values
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data[:len(data)/2])
		return
	}
	answerJSON(w, http.StatusOK, whole)
}

// sufferWhole carries out a fault on an answer that is no stream, and says whether that was the answer.
func (s *Server) sufferWhole(ctx context.Context, w http.ResponseWriter, fault Fault, texts []wholeText) bool {
	switch fault.Kind {
	case Reset, CutEvent:
		reset(w)
	case Silence:
		<-ctx.Done()
	case Stall:
		return s.sleep(ctx, fault.Delay) != nil
	case Garbage:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"id":"chatcm`))
	case SilentEnd:
		w.WriteHeader(http.StatusOK)
	case ErrorEvent:
		s.refuse(w, internal())
	case Aborted, ContentFilter:
		reason := "abort"
		if fault.Kind == ContentFilter {
			reason = "content_filter"
		}
		for i := range texts {
			texts[i].finish = reason
		}
		return false
	default:
		return false
	}
	return true
}

// wholeText is a text that has ended.
type wholeText struct {
	content, reasoning, refusal string
	calls                       []wholeCall
	chosen                      []choice
	finish, stop                string
}

type wholeCall struct{ id, name, arguments string }

func (t *wholeText) add(p *piece) {
	t.chosen = append(t.chosen, p.chosen...)
	switch p.channel {
	case reasoningChannel:
		t.reasoning += p.content
	case refusalChannel:
		t.refusal += p.content
	case callChannel:
		t.addCall(p)
	case contentChannel:
		t.content += p.content
	}
	if p.finish != "" {
		t.finish, t.stop = p.finish, p.stop
	}
}

func (t *wholeText) addCall(p *piece) {
	if p.name != "" {
		t.calls = append(t.calls, wholeCall{id: p.callID, name: p.name})
	}
	if len(t.calls) > 0 {
		t.calls[len(t.calls)-1].arguments += p.content
	}
}

// ids are the tokens of the text.
func (t *wholeText) ids() []int {
	p := piece{chosen: t.chosen}
	return p.ids()
}
