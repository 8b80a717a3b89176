package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/services/worker/engine/servertest"
)

// This file measures what a client of OpenAI's API sees of it when the inference server behind its stream is lost, by the way in which
// the stream goes on, and by how long it has been.

const (
	inferenceInterval = 10 * time.Millisecond // between two tokens of a server
	inferencePrefill  = 30 * time.Millisecond
	inferenceStreams  = 16 // at once, over two servers
	inferenceRounds   = 2
	inferenceRest     = 200 // tokens behind the fault
)

// way is how streams go on.
type way struct {
	name    string
	kind    servertest.Kind
	workers int
	env     []string // of the workers
	headers []string
	exact   bool // the text is the one without a fault
}

var inferenceWays = []way{
	{name: "by ids", kind: servertest.VLLM, workers: 2, exact: true},
	{name: "made again", kind: servertest.Ollama, workers: 2, exact: true},
	{name: "by text", kind: servertest.Ollama, workers: 2, env: []string{"CONNECTION_SWAP_WORKER_MAX_REPLAY_TOKENS=1"}, headers: []string{"X-Connswap-Continuity", "text"}},
	{name: "standby", kind: servertest.VLLM, workers: 3, headers: []string{"X-Connswap-Standby", "1"}, exact: true},
}

var inferenceFaults = []string{"killed", "hung", "drained"}

// inferenceRow is a line of the table.
type inferenceRow struct {
	Way      string  `json:"way"`
	Fault    string  `json:"fault"`
	Position int     `json:"position"` // tokens before it
	Samples  int     `json:"samples"`  // streams that were moved
	Gap      summary `json:"gap_ms"`   // of each, beyond the usual interval
	Resumed  string  `json:"resumed"`  // class
	Gone     float64 `json:"gone_ms"`  // of a worker that is asked to stop: until it was gone, the longest; 0 for other faults
	Interval float64 `json:"interval_ms"`
	Prefill  float64 `json:"prefill_ms"`
	Machine  string  `json:"machine"`
}

func (inferenceRow) title() string {
	return fmt.Sprintf("%-11s %-8s %8s %8s | %8s %8s %8s | %-9s | %s", "way", "server", "position", "streams", "gap p50", "p99", "max ms", "class", "worker gone after")
}

func (r inferenceRow) String() string {
	gone := ""
	if r.Gone > 0 {
		gone = fmt.Sprintf("%.0f ms", r.Gone)
	}
	return fmt.Sprintf("%-11s %-8s %8d %8d | %8.1f %8.1f %8.1f | %-9s | %s", r.Way, r.Fault, r.Position, r.Samples, r.Gap.P50, r.Gap.P99, r.Gap.Max, r.Resumed, gone)
}

func (o options) inference(ctx context.Context, r *report) error {
	for _, w := range inferenceWays {
		if len(o.positions) == 0 {
			return nil
		}
		if err := o.way(ctx, w, r); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// way measures one way, with a director, workers, and servers of this process.
func (o options) way(ctx context.Context, w way, r *report) error {
	c, err := cluster.Start(o.bin, w.workers, "CONNECTION_SWAP_LOG_LEVEL=warn", "CONNECTION_SWAP_DIRECTOR_HTTP=plain", "CONNECTION_SWAP_WORKER_ENGINE=upstream",
		"CONNECTION_SWAP_DIRECTOR_MAX_SWAPS_PER_MINUTE=100000")
	if err != nil {
		return err
	}
	defer c.Stop()
	b := &behind{way: w, Cluster: c, servers: map[string]*servertest.Server{}, urls: map[string]string{}}
	for i := range w.workers {
		label := string(rune('a' + i))
		if err := b.serve(label); err != nil {
			return err
		}
		defer b.servers[label].Close()
		if err := b.work(ctx, label); err != nil {
			return err
		}
	}
	for _, position := range o.positions {
		for _, fault := range inferenceFaults {
			line, err := b.measure(ctx, fault, position)
			if err != nil {
				return fmt.Errorf("%s at token %d: %w\n%s", fault, position, err, c.Logs())
			}
			if err := r.add(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// behind is a system with its servers.
type behind struct {
	way
	*cluster.Cluster
	servers map[string]*servertest.Server
	urls    map[string]string
}

func (b *behind) serve(label string) error {
	s := servertest.New(b.kind, servertest.Options{Model: "m", TokenInterval: inferenceInterval, Prefill: inferencePrefill})
	addr := "127.0.0.1:0"
	if err := s.Serve(func() (net.Listener, error) { // at the same port each time
		l, err := net.Listen("tcp", addr)
		if err == nil {
			addr = l.Addr().String()
		}
		return l, err
	}); err != nil {
		return err
	}
	b.servers[label], b.urls[label] = s, "http://"+addr
	return nil
}

func (b *behind) work(ctx context.Context, label string) error {
	return b.Work(ctx, label, append(b.env, "CONNECTION_SWAP_WORKER_UPSTREAM_URL="+b.urls[label])...)
}

// measure has streams run into a fault of the server of one worker, in some rounds.
func (b *behind) measure(ctx context.Context, fault string, position int) (inferenceRow, error) {
	row := inferenceRow{
		Way: b.name, Fault: fault, Position: position, Interval: milliseconds(inferenceInterval), Prefill: milliseconds(inferencePrefill), Machine: machine(),
	}
	want, err := b.undisturbed(ctx, position+inferenceRest)
	if err != nil {
		return row, err
	}
	var gaps []time.Duration
	for range inferenceRounds {
		hit := ""
		var once sync.Once
		var gone func() (time.Duration, error)
		var failed error
		answers := b.readAll(ctx, b.Addr(), position+inferenceRest, b.headers, func(n int, worker string) {
			if n >= position {
				once.Do(func() { hit = worker; gone, failed = b.lose(fault, worker) })
			}
		})
		if failed != nil {
			return row, failed
		}
		for i, a := range answers {
			switch {
			case a.err != nil:
				return row, fmt.Errorf("stream %d: %w", i, a.err)
			case b.exact && a.text != want[i].text:
				return row, fmt.Errorf("stream %d has another text than without a fault", i)
			case b.exact && a.tokens != position+inferenceRest: // of a text that is continued as text nobody knows exactly
				return row, fmt.Errorf("stream %d has %d tokens by its usage", i, a.tokens)
			case a.swaps > 0:
				gaps, row.Resumed = append(gaps, a.gap-inferenceInterval), a.resumed
			}
		}
		if gone != nil {
			after, err := gone()
			if err != nil {
				return row, err
			}
			row.Gone = max(row.Gone, milliseconds(after))
		}
		if err := b.mend(ctx, fault, hit); err != nil {
			return row, err
		}
	}
	row.Samples, row.Gap = len(gaps), summarize(gaps)
	return row, nil
}

// lose makes a fault happen; gone waits until a worker that was asked to stop has done so.
func (b *behind) lose(fault, worker string) (gone func() (time.Duration, error), err error) {
	switch fault {
	case "killed":
		b.servers[worker].Kill()
	case "hung":
		b.servers[worker].Hang()
	case "drained":
		began := time.Now()
		ended := make(chan time.Duration, 1)
		if err := b.Workers[worker].Process.Signal(syscall.SIGTERM); err != nil {
			return nil, err
		}
		go func() {
			_ = b.Workers[worker].Wait() // it was asked to
			ended <- time.Since(began)
		}()
		return func() (time.Duration, error) {
			select {
			case d := <-ended:
				return d, nil
			case <-time.After(waitTimeout + waitTimeout):
				return 0, errors.New("the worker does not stop")
			}
		}, nil
	}
	return nil, nil
}

func (b *behind) mend(ctx context.Context, fault, worker string) error {
	switch fault {
	case "killed":
		if err := b.servers[worker].Start(); err != nil {
			return err
		}
	case "hung":
		b.servers[worker].Resume()
	case "drained":
		return b.work(ctx, worker)
	}
	if err := sleep(ctx, 3*time.Second); err != nil { // it may not have been noticed
		return err
	}
	return b.Await(ctx, worker)
}

// undisturbed returns what the streams read of a server itself.
func (b *behind) undisturbed(ctx context.Context, tokens int) ([]sseAnswer, error) {
	answers := b.readAll(ctx, strings.TrimPrefix(b.urls["a"], "http://"), tokens, nil, func(int, string) {})
	for _, a := range answers {
		if a.err != nil {
			return nil, a.err
		}
	}
	return answers, nil
}

// sseAnswer is what a client has of an answer.
type sseAnswer struct {
	text    string
	gap     time.Duration // the longest
	swaps   int
	resumed string
	tokens  int
	err     error
}

// readAll reads all streams at once. at is told how many pieces one has, and of which worker.
func (b *behind) readAll(ctx context.Context, addr string, tokens int, headers []string, at func(n int, worker string)) []sseAnswer {
	answers := make([]sseAnswer, inferenceStreams)
	var reading sync.WaitGroup
	for i := range answers {
		reading.Go(func() { answers[i] = readSSE(ctx, addr, i, tokens, headers, at) })
	}
	reading.Wait()
	return answers
}

func readSSE(ctx context.Context, addr string, i, tokens int, headers []string, at func(int, string)) (a sseAnswer) {
	body := fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":"Number %d: [[length %d]] talk."}],"seed":%d,"max_tokens":%d,"temperature":1,"stream":true,"stream_options":{"include_usage":true}}`,
		i, tokens+10, i+1, tokens)
	ctx, cancel := context.WithTimeout(ctx, 4*waitTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return sseAnswer{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return sseAnswer{err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return sseAnswer{err: errors.New(resp.Status)}
	}
	var text strings.Builder
	finished, pieces, last := false, 0, time.Time{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok || bytes.Equal(data, []byte("[DONE]")) {
			continue
		}
		var event struct {
			Error   json.RawMessage
			Choices []struct {
				Delta  struct{ Content string }
				Finish string `json:"finish_reason"`
			}
			Usage *struct {
				Completion int `json:"completion_tokens"`
			}
			Connswap struct {
				Swaps      int
				Continuity string
			}
		}
		if err := json.Unmarshal(data, &event); err != nil || len(event.Error) > 0 && string(event.Error) != "null" {
			return sseAnswer{err: fmt.Errorf("an event like %.200s", data)}
		}
		if event.Usage != nil {
			a.tokens, a.swaps, a.resumed = event.Usage.Completion, event.Connswap.Swaps, event.Connswap.Continuity
		}
		if len(event.Choices) == 0 {
			continue
		}
		finished = finished || event.Choices[0].Finish != ""
		if content := event.Choices[0].Delta.Content; content != "" {
			now := time.Now()
			if text.WriteString(content); !last.IsZero() {
				a.gap = max(a.gap, now.Sub(last))
			}
			last = now
			pieces++
			at(pieces, resp.Header.Get("X-Connswap-Worker"))
		}
	}
	if a.text, a.err = text.String(), lines.Err(); a.err == nil && !finished {
		a.err = errors.New("the answer ends without a reason to finish")
	}
	return a
}
