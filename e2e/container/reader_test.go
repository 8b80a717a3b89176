package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// request is what a client asks for.
type request struct {
	prompt string
	tokens int
	seed   uint64
	state  int // bytes of the engine's state, for engine stateful; 0 for engine markov
}

// story is an ordinary request: at 60 ms a token it takes about ten seconds.
var story = request{prompt: "Once upon a time", tokens: 160, seed: 17}

// event is one line that the client writes with --output json.
type event struct {
	Event        string    `json:"event"`
	Time         time.Time `json:"time"`
	ConnectionID string    `json:"connection_id"`
	StreamID     uint64    `json:"stream_id"`
	Worker       string    `json:"worker"`
	Epoch        uint64    `json:"epoch"`
	Sequence     uint64    `json:"sequence"`
	Director     string    `json:"director"`
	ODCID        string    `json:"odcid"`
	Exporter     string    `json:"exporter"`
	Text         string    `json:"text"`
	FromWorker   string    `json:"from_worker"`
	ToWorker     string    `json:"to_worker"`
	Kind         string    `json:"kind"`
	Cause        string    `json:"cause"`
	GapMS        float64   `json:"gap_ms"`
	IntervalMS   float64   `json:"interval_ms"`
	FinishReason string    `json:"finish_reason"`
	Tokens       uint64    `json:"tokens"`
	Swaps        int       `json:"swaps"`
	Digest       string    `json:"digest"`
	Code         string    `json:"code"`
	Message      string    `json:"message"`
}

// transcript is what a client has written, in order.
type transcript []event

// of returns the events of one kind.
func (t transcript) of(kind string) transcript {
	return slices.DeleteFunc(slices.Clone(t), func(e event) bool { return e.Event != kind })
}

// causes are those of the swaps, in order.
func (t transcript) causes() (causes []string) {
	for _, e := range t.of("swapped") {
		causes = append(causes, e.Cause)
	}
	return causes
}

// worker is who served last.
func (t transcript) worker() string {
	if len(t) == 0 {
		return ""
	}
	return t[len(t)-1].Worker
}

// sequence is the number of the last token.
func (t transcript) sequence() uint64 {
	if len(t) == 0 {
		return 0
	}
	return t[len(t)-1].Sequence
}

// parse reads the lines of a client. A last line without an end is left out.
func parse(output []byte) (transcript, error) {
	var events transcript
	for line := range bytes.Lines(output) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return events, fmt.Errorf("the client wrote %q: %w", line, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// reader is a container that runs client generate once.
type reader struct {
	*node
	request request
	started string // by the daemon's clock

	mu     sync.Mutex
	output []byte // read so far
	ended  bool   // nothing more will come
	err    error  // of reading
}

// generate starts a client.
func (c *cluster) generate(t *testing.T, r request) *reader {
	t.Helper()
	n, err := c.start(t.Context(), spec{
		image: clientImage, name: "client", env: env{"DIRECTOR_TARGET": "director:61000"}, args: []string{
			"generate", r.prompt, "--output", "json",
			"--max-tokens", strconv.Itoa(r.tokens), "--seed", strconv.FormatUint(r.seed, 10),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c.attend(t, n, r)
}

// attend reads along with a client.
func (c *cluster) attend(t *testing.T, n *node, r request) *reader {
	t.Helper()
	cl := &reader{node: n, request: r, started: n.inspect(t).State.StartedAt}
	c.run.Go(func() { cl.follow(c.ctx) })
	return cl
}

// follow reads what the client writes until it ends.
func (cl *reader) follow(ctx context.Context) {
	logs, err := docker.ContainerLogs(ctx, cl.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	if err == nil {
		defer logs.Close()
		_, err = stdcopy.StdCopy(cl, io.Discard, logs)
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.ended, cl.err = true, err
}

// Write takes what the client has written.
func (cl *reader) Write(p []byte) (int, error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.output = append(cl.output, p...)
	return len(p), nil
}

// read returns the events so far, and whether there may be more.
func (cl *reader) read() (events transcript, more bool, err error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	events, err = parse(cl.output)
	return events, !cl.ended, errors.Join(err, cl.err)
}

// until waits until what the client has written satisfies ok. It fails the test if the client ends before.
func (cl *reader) until(t *testing.T, what string, ok func(transcript) bool) transcript {
	t.Helper()
	var events transcript
	eventually(t, "the client "+what, func() (bool, error) {
		var more bool
		var err error
		events, more, err = cl.read()
		switch {
		case ok(events):
			return true, nil
		case err == nil && !more:
			err = errors.New("it has ended")
		}
		return false, err
	})
	return events
}

// reads waits until the client has so many tokens, and returns the name of the worker that serves it.
func (cl *reader) reads(t *testing.T, tokens uint64) (worker string) {
	t.Helper()
	return cl.until(t, fmt.Sprintf("has read %d tokens", tokens), func(events transcript) bool {
		return events.sequence() >= tokens
	}).worker()
}

// swapped waits until the client was told of so many swaps and reads on, and returns the last of them.
func (cl *reader) swapped(t *testing.T, swaps int) event {
	t.Helper()
	events := cl.until(t, fmt.Sprintf("reads on after swap %d", swaps), func(events transcript) bool {
		told := events.of("swapped")
		return len(told) >= swaps && events.sequence() > told[swaps-1].Sequence
	})
	return events.of("swapped")[swaps-1]
}

// running fails the test unless the client still reads: otherwise a fault came too late to concern it.
func (cl *reader) running(t *testing.T) {
	t.Helper()
	if events, more, err := cl.read(); err != nil || !more || len(events.of("done")) > 0 {
		t.Fatalf("the stream has ended at token %d of %d, before the test was over (%v)", events.sequence(), cl.request.tokens, err)
	}
}
