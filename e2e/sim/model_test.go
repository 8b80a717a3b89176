package sim

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
)

// ask reads a stream of a model, and returns its text and who served it.
func (s *scenario) ask(model string, tokens int, at func(connswap.Token)) (text string, workers []string, err error) {
	stream, err := s.conn.Generate(s.ctx, connswap.Request{Model: model, Prompt: "p", MaxTokens: uint32(tokens), Seed: 7})
	if err != nil {
		return "", nil, err
	}
	for event, err := range stream.Events() {
		switch e := event.(type) {
		case connswap.Assigned:
			workers = append(workers, e.Worker)
		case connswap.Swapped:
			workers = append(workers, e.To)
		case connswap.Token:
			text += e.Text
			if at != nil {
				at(e)
			}
		}
		if err != nil {
			return text, workers, err
		}
	}
	return text, workers, nil
}

// TestModels: of workers with several models each stream gets the one that it names, also from its next worker; who names none
// gets the fleet's default; a model that nobody has is refused by name.
func TestModels(t *testing.T) {
	both := func(cfg *config.Worker) { cfg.Engine = "counter,markov" }
	stage(t, setup{worker: both}, func(t *testing.T, s *scenario) {
		lonely := s.work(func(cfg *config.Worker) { cfg.Engine = "markov=1" })
		time.Sleep(time.Second)
		for model, want := range map[string]string{"counter": counted(40), "markov": s.textOf(t, "markov", 40), "": s.textOf(t, "markov", 40)} {
			text, workers, err := s.ask(model, 40, func(token connswap.Token) {
				if token.Sequence == 20 {
					p := s.worker(token.Worker)
					p.die(p.host.Kill)
					time.AfterFunc(time.Second, p.restart)
				}
			})
			if err != nil || text != want || len(workers) != 2 {
				t.Errorf("model %q by %v: %v\n%q, want\n%q", model, workers, err, text, want)
			}
			if model == "counter" && (workers[0] == lonely.cfg.Label || workers[1] == lonely.cfg.Label) {
				t.Errorf("a worker without the model served it: %v", workers)
			}
			time.Sleep(5 * time.Second)
		}
		_, _, err := s.ask("gpt", 40, nil)
		var e *connswap.Error
		if !errors.As(err, &e) || e.Code != connswap.CodeModel || !strings.Contains(e.Message, `no worker has a model "gpt"; there are: counter, markov`) {
			t.Errorf("got %v", err)
		}
	})
}

// textOf is what an undisturbed stream of a model reads.
func (s *scenario) textOf(t *testing.T, model string, tokens int) string {
	t.Helper()
	text, _, err := s.ask(model, tokens, nil)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestModelCapacity: a model with few places is full before its worker is, and its streams wait for a place of that model.
func TestModelCapacity(t *testing.T) {
	narrow := func(cfg *config.Worker) { cfg.Engine = "counter=1,markov" }
	stage(t, setup{worker: narrow}, func(t *testing.T, s *scenario) {
		done := make(chan error, 6)
		for i := range 6 {
			model := []string{"counter", "markov"}[i%2]
			go func() {
				_, _, err := s.ask(model, 40, nil)
				done <- err
			}()
		}
		time.Sleep(time.Second)
		status, err := s.operate().Status(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		byModel := map[string]int{}
		for _, stream := range status.Connections[0].Streams {
			byModel[stream.Model+" "+stream.State]++
		}
		if byModel["counter streaming"] != 2 || byModel["counter waiting"] != 1 || byModel["markov streaming"] != 3 {
			t.Errorf("streams: %v", byModel)
		}
		for range 6 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
