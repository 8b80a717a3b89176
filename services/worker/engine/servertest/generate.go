package servertest

import (
	"context"
	"time"
)

// waiter waits, and fails when the client has left or the server has been killed.
type waiter func(d time.Duration) error

// usage is what a request took.
type usage struct{ prompt, completion, reasoning int }

// writing is one of the texts of a request in the making.
type writing struct {
	sequence *sequence
	reader   reader
	made     int
	reasoned int
	finished bool
	held     []choice // of pieces that were not put out
}

// generate makes the texts of a request, a token of each in turn, and puts the pieces out.
func (s *Server) generate(ctx context.Context, j *job, wait waiter, put func(piece) error) (usage, error) {
	leave, err := s.load.enter(ctx)
	if err != nil {
		return usage{}, err
	}
	defer leave()
	used := usage{prompt: j.promptTokens()}
	if err := wait(s.options.Prefill + time.Duration(used.prompt)*s.options.PrefillToken + delayOf(j.faults, SlowFirstToken)); err != nil {
		return used, err
	}
	texts := s.writings(j)
	for live := len(texts); live > 0; {
		for _, w := range texts {
			if w.finished {
				continue
			}
			if err := ctx.Err(); err != nil {
				return used.of(texts), err
			}
			if err := s.write(j, w, put); err != nil {
				return used.of(texts), err
			}
			if w.finished {
				live--
			}
		}
		if live > 0 {
			if err := wait(s.options.TokenInterval); err != nil {
				return used.of(texts), err
			}
		}
	}
	return used.of(texts), nil
}

// of is the usage with what the texts took.
func (u usage) of(texts []*writing) usage {
	for _, w := range texts {
		u.completion += w.made
		u.reasoning += w.reasoned
	}
	return u
}

func (s *Server) writings(j *job) []*writing {
	texts := make([]*writing, j.texts)
	for i := range texts {
		texts[i] = &writing{
			sequence: newSequence(s.weights(), s.options.Length, j.promptOf(i), j.ruled),
			reader: reader{
				text: i, chat: j.form == chatForm, stops: j.stops, newCall: func() string { return s.dialect.newCallID(j.random) },
			},
		}
	}
	return texts
}

// write makes the next token of a text.
func (s *Server) write(j *job, w *writing, put func(piece) error) error {
	if j.limit == 0 && !j.endless {
		w.finished = true
		return put(piece{text: w.reader.text, finish: "length"})
	}
	p := s.next(j, w)
	w.finished = p.finish != ""
	if p.channel == reasoningChannel {
		w.reasoned++
	}
	p.chosen = append(w.held, p.chosen...)
	w.held = nil
	if s.dialect.withholds(j, &p) {
		w.held = p.chosen
		return nil
	}
	return put(p)
}

// next makes one token, and the piece that comes of it.
func (s *Server) next(j *job, w *writing) piece {
	goOn := j.endless || w.made < j.least
	candidates := w.sequence.candidates(s.saltOf(j, w), goOn)
	chosen := j.sampling.choose(w.sequence, candidates, w.reader.text%max(1, j.body.N))
	w.made++
	s.load.count()
	if chosen.token == tokenEnd || s.stopsAt(j, chosen.token) {
		return piece{
			text: w.reader.text, content: w.reader.end(), chosen: []choice{chosen}, finish: finishOf(w),
		}
	}
	w.sequence.push(chosen.token)
	p := w.reader.read(chosen)
	if p.finish == "" && (w.made == j.limit || len(w.sequence.tokens) >= s.options.ContextLength) {
		p.finish = "length"
		if p.channel == contentChannel {
			p.content += w.reader.end()
		}
	}
	return p
}

func finishOf(w *writing) string {
	if w.reader.calls > 0 {
		return "tool_calls"
	}
	return "stop"
}

func (s *Server) stopsAt(j *job, token int) bool {
	for _, stop := range j.body.StopTokenIDs {
		if token == stop {
			return true
		}
	}
	return false
}

// saltOf makes the model another one where a fault or the company of other requests does.
func (s *Server) saltOf(j *job, w *writing) uint64 {
	for _, fault := range j.faults {
		if fault.Kind == Diverge && w.made >= fault.At {
			return 0x5eed
		}
	}
	if s.options.BatchDependent && s.load.busy() && w.sequence.hash>>40%3 == 0 {
		return 0xba7c4
	}
	return 0
}
