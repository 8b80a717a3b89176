package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// overHTTP reports whether a stream of a client is asked for over HTTP. Those of clients that go away are not: they
// show how connswap resumes, and TCP bears that by itself.
func (p plan) overHTTP(client int, s streamPlan) bool {
	return s.seed%4 == 0 && !p.leaves(client)
}

// breaksOff reports whether the client of such a stream hangs up in its midst, and takes it up again.
func (s streamPlan) breaksOff() bool { return s.seed%8 == 0 }

// web is one stream over HTTP, which its client takes up again where it is broken off.
type web struct {
	*front
	id       string
	have     int // events
	text     string
	finish   string
	complete bool // the last word was heard
}

// webStream reads one stream over HTTP, as stream does over connswap: at its end it has exactly the text of a run without faults.
func (c *cluster) webStream(ctx context.Context, p plan, host string, plan streamPlan) error {
	want, err := p.faultFree(plan)
	if err != nil {
		return err
	}
	w := &web{front: c.front(host)}
	w.ctx = ctx
	defer w.close()
	for !w.complete {
		if w.id != "" {
			c.again.Add(1)
		}
		response, err := w.ask(p, plan)
		if err == nil {
			err = w.read(response.Body, func() error {
				c.read(plan, uint64(w.have))
				switch {
				case plan.cancel > 0 && w.have >= plan.cancel:
					return errEnough
				case plan.breaksOff() && w.have == plan.tokens/2+1:
					return errHungUp
				}
				return nil
			})
			_ = response.Body.Close()
		}
		switch {
		case errors.Is(err, errEnough):
			return nil
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("after event %d: %w", w.have, err)
		case err != nil && strings.Contains(err.Error(), "stream_interrupted"), errors.Is(err, errRefused):
			return err
		case err != nil: // it comes back
			c.sleep(100 * time.Millisecond)
		}
	}
	if w.text != want || w.finish != "length" {
		return fmt.Errorf("%s: text differs from that of a run without faults:\n got %q\nwant %q", w.finish, w.text, want)
	}
	c.overHTTP.Add(1)
	return nil
}

var (
	errEnough  = errors.New("the client has read enough")
	errHungUp  = errors.New("the client hangs up")
	errRefused = errors.New("refused")
)

// ask begins the stream, or goes on with it.
func (w *web) ask(p plan, plan streamPlan) (response *http.Response, err error) {
	if w.id == "" {
		w.have, w.text = 0, "" // what there is of another one is none of this
		response, err = w.open(http.MethodPost, "/v1/completions", map[string]any{
			"model": p.engine, "prompt": plan.prompt, "seed": plan.seed, "max_tokens": plan.tokens, "stream": true, "ignore_eos": true,
		}, "X-Connswap-Resume", "1")
	} else {
		response, err = w.open(http.MethodGet, "/v1/streams/"+w.id, nil, "Last-Event-Id", fmt.Sprint(w.have))
	}
	if err == nil && response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		return nil, fmt.Errorf("%w: %s: %s", errRefused, response.Status, body)
	}
	return response, err
}

// read takes events until the stream ends or is broken off, or each says that it is enough.
func (w *web) read(body io.Reader, each func() error) error {
	lines := bufio.NewReader(body)
	number := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		field, value := fieldOf(strings.TrimSuffix(line, "\n"))
		switch {
		case field == "id":
			number = value
			continue
		case field != "data":
			continue
		case number != fmt.Sprint(w.have+1):
			return fmt.Errorf("%w: event %s after %d", errRefused, number, w.have)
		}
		w.have++
		if value == "[DONE]" {
			w.complete = true
			return nil
		}
		if err := w.take(value); err != nil {
			return err
		}
		if err := each(); err != nil {
			return err
		}
	}
}

func (w *web) take(data string) error {
	var chunk struct {
		ID      string
		Error   json.RawMessage
		Choices []struct {
			Text   string
			Finish string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal([]byte(data), &chunk); err != nil {
		return errors.Join(errRefused, err)
	}
	if len(chunk.Choices) != 1 || w.id != "" && chunk.ID != w.id {
		return fmt.Errorf("%w: %q, of %s", errRefused, data, w.id)
	}
	w.id, w.text, w.finish = chunk.ID, w.text+chunk.Choices[0].Text, chunk.Choices[0].Finish
	return nil
}
