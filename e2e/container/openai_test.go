package container

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// completion is a completion that is streamed over HTTP.
type completion struct {
	header, trailer http.Header
	text            string
	finish          string
	ids             map[string]bool
	tokens          int // by the usage
	done            bool
}

// A program that speaks OpenAI's API reads through the deaths of both workers, one after the other, on one HTTP response: the text is
// that of a run without faults, and it says how often another worker went on. What asks for the whole text at once gets that too.
func TestOpenAI(t *testing.T) {
	t.Parallel()
	c := up(t, setup{director: env{"DIRECTOR_HTTP": "plain"}})
	r := request{prompt: "The lighthouse", tokens: 150, seed: 77}
	want, err := faultFree(r)
	if err != nil {
		t.Fatal(err)
	}
	whole := make(chan string, 1)
	go func() { // the same at once, while the workers die
		_, text, err := c.ask(t, r, false, nil)
		if err != nil {
			text = err.Error()
		}
		whole <- text
	}()
	got, _, err := c.ask(t, r, true, func(n int, first string) {
		switch n {
		case 20:
			c.workers[first].signal(t, "KILL")
		case 60:
			for name, w := range c.workers {
				if name == first {
					w.start(t)
					c.serving(t, first)
				} else {
					defer w.signal(t, "KILL")
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.text != want || got.finish != "length" || !got.done || got.tokens != r.tokens || len(got.ids) != 1 {
		t.Errorf("got %+v\nwant the text %q", got, want)
	}
	if n := got.trailer.Get("X-Connswap-Swaps"); n != "2" || got.header.Get("X-Connswap-Continuity") != "exact" {
		t.Errorf("header %v, trailer %v", got.header, got.trailer)
	}
	if text := <-whole; text != want {
		t.Errorf("at once: %q", text)
	}
}

// ask asks for a completion. read is called after each token that is streamed, with the worker that began.
func (c *cluster) ask(t *testing.T, r request, stream bool, read func(n int, first string)) (*completion, string, error) {
	addr, err := c.director.published(t.Context(), directorHTTP)
	if err != nil {
		return nil, "", err
	}
	body, err := json.Marshal(map[string]any{
		"model": "markov", "prompt": r.prompt, "max_tokens": r.tokens, "seed": r.seed, "ignore_eos": true, "stream": stream,
		"stream_options": map[string]bool{"include_usage": stream},
	})
	if err != nil {
		return nil, "", err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	resp, err := (&http.Client{Timeout: 3 * time.Minute}).Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(resp.Body)
		return nil, "", fmt.Errorf("%s: %s (%w)", resp.Status, text, err)
	}
	if !stream {
		var document struct {
			Choices []struct{ Text string }
		}
		err := json.NewDecoder(resp.Body).Decode(&document)
		if err != nil || len(document.Choices) != 1 {
			return nil, "", fmt.Errorf("%+v: %w", document, err)
		}
		return nil, document.Choices[0].Text, nil
	}
	got := &completion{header: resp.Header, ids: map[string]bool{}}
	lines := bufio.NewScanner(resp.Body)
	for n := 0; lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok:
			continue
		case data == "[DONE]":
			got.done = true
			continue
		}
		var chunk struct {
			ID      string
			Choices []struct {
				Text   string
				Finish string `json:"finish_reason"`
			}
			Usage struct {
				Tokens int `json:"completion_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return nil, "", fmt.Errorf("%s: %w", strconv.Quote(data), err)
		}
		got.ids[chunk.ID], got.tokens = true, chunk.Usage.Tokens
		for _, choice := range chunk.Choices {
			got.text, got.finish = got.text+choice.Text, choice.Finish
			if n++; choice.Finish == "" {
				read(n, resp.Header.Get("X-Connswap-Worker"))
			}
		}
	}
	got.trailer = resp.Trailer
	return got, "", lines.Err()
}
