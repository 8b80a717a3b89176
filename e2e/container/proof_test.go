package container

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
)

// Causes of swaps, as the director names them.
const (
	reported    = "worker reported failure"
	tether      = "worker process died (tether closed)"
	refused     = "worker process died (connection refused)"
	unreachable = "worker unreachable (no packets)"
	hangs       = "worker hangs (no progress)"
	stuck       = "stream stuck (no token)"

	shutdown  = "worker shuts down"
	drained   = "drain"
	requested = "operator"
)

// Kinds of swaps.
const (
	failover = "failover"
	planned  = "planned"
)

// survives waits for the end of a stream and proves that nothing but its workers has changed: to the client it is one
// connection, one stream and the text of a run without faults, and the director says the same of every swap.
func (c *cluster) survives(t *testing.T, cl *reader) transcript {
	t.Helper()
	code := cl.exit(t)
	stdout, stderr, err := cl.node.output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 || stderr != "" {
		t.Errorf("%s: exit code %d, and on stderr %q", cl.name, code, stderr)
	}
	if state := cl.inspect(t); state.RestartCount != 0 || state.State.StartedAt != cl.started {
		t.Errorf("%s is not the process that it was: %d restarts, started %s and %s", cl.name, state.RestartCount, cl.started, state.State.StartedAt)
	}
	events, err := parse([]byte(stdout))
	if err := errors.Join(err, checkClient(cl.request, events)); err != nil {
		t.Fatalf("%s: %v", cl.name, err)
	}
	if err := c.checkDirector(t, events); err != nil {
		t.Fatalf("%s: %v", cl.name, err)
	}
	return events
}

// checkClient checks what one client wrote, by itself and against the engine.
func checkClient(r request, events transcript) error {
	want, err := faultFree(r)
	if err != nil {
		return err
	}
	if len(events) == 0 || events[0].Event != "connected" || events[len(events)-1].Event != "done" {
		return fmt.Errorf("it does not begin with connected and end with done: %+v", events)
	}
	first, done := events[0], events[len(events)-1]
	p := &proof{first: first, stream: done.StreamID}
	if first.ConnectionID == "" || first.ODCID == "" || first.Exporter == "" {
		p.complain("the connection proves nothing: %+v", first)
	}
	if n := len(events.of("connected")) + len(events.of("assigned")) + len(events.of("done")); n != 3 {
		p.complain("connected, assigned and done should come once each")
	}
	for _, e := range events {
		p.follow(e)
	}
	if n := len(events.of("swapped")); done.Swaps != n || done.Tokens != uint64(r.tokens) || done.FinishReason != "length" {
		p.complain("asked for %d tokens and told of %d swaps, it ends with %+v", r.tokens, n, done)
	}
	if len(p.tokens) != r.tokens {
		p.complain("%d tokens, asked for %d", len(p.tokens), r.tokens)
	}
	if text := strings.Join(p.tokens, ""); text != want {
		p.complain("text differs from that of a run without faults:\n got %q\nwant %q", text, want)
	}
	if digest := digestOf(p.tokens); done.Digest != digest {
		p.complain("digest %s, that of the tokens is %s", done.Digest, digest)
	}
	return errors.Join(p.errs...)
}

// proof goes through a transcript, one event after the other.
type proof struct {
	first  event
	stream uint64
	worker string // that serves
	epoch  uint64
	tokens []string
	errs   []error
}

func (p *proof) complain(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *proof) follow(e event) {
	if e.ConnectionID != p.first.ConnectionID || e.Event != "connected" && e.StreamID != p.stream {
		p.complain("another connection or stream: %+v", e)
	}
	if (e.Event == "swapped" || e.Event == "done") && (e.ODCID != p.first.ODCID || e.Exporter != p.first.Exporter) {
		p.complain("not the QUIC connection that it was: %+v, then %+v", p.first, e)
	}
	sequence := uint64(len(p.tokens))
	switch e.Event {
	case "resumed": // it says which connection it is now
		if e.ODCID == "" || e.Sequence != sequence {
			p.complain("after token %d: %+v", sequence, e)
		}
		p.first.ODCID, p.first.Exporter = e.ODCID, e.Exporter
	case "assigned", "swapped":
		if e.Epoch <= p.epoch {
			p.complain("epoch %d after %d: %+v", e.Epoch, p.epoch, e)
		}
		if e.Event == "swapped" && (e.FromWorker != p.worker || e.ToWorker != e.Worker || e.Sequence != sequence || e.Cause == "" ||
			e.Kind != failover && e.Kind != planned) {
			p.complain("%s was serving at token %d, but swapped is %+v", p.worker, sequence, e)
		}
		p.worker, p.epoch = e.Worker, e.Epoch
	case "token":
		if e.Sequence != sequence+1 {
			p.complain("token %d after %d", e.Sequence, sequence)
		}
		if e.Epoch != p.epoch || e.Worker != p.worker {
			p.complain("%s serves in epoch %d, but there is %+v", p.worker, p.epoch, e)
		}
		p.tokens = append(p.tokens, e.Text)
	}
}

// digestOf is the digest as docs/PROTOCOL.md has it, not as the code computes it.
func digestOf(tokens []string) string {
	text := strings.Join(tokens, "")
	if text == "" {
		return fmt.Sprintf("%x", sha256.Sum256(nil))
	}
	sum := sha256.Sum256([]byte(text))
	content := binary.AppendUvarint([]byte{0, 0}, uint64(len(text))) // of choice 0, channel 0
	return fmt.Sprintf("%x", sha256.Sum256(append(content, sum[:]...)))
}

// checkDirector checks that the director has seen the same connection and the same swaps as the client.
func (c *cluster) checkDirector(t *testing.T, events transcript) error {
	t.Helper()
	first, told := events[0], events.of("swapped")
	seen, errs := c.witness.of(first.ConnectionID)
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if seen.ODCID != first.ODCID || seen.ExporterHash != (connswap.Proof{Exporter: first.Exporter}).ExporterHash() {
		complain("the director has %+v, the client %+v", seen.connectionStatus, first)
	}
	stream := events[len(events)-1].StreamID
	if epochs := seen.epochs[stream]; len(epochs) < min(2, len(told)+1) {
		complain("the director should have been seen serving before and after a swap: %v, swaps %+v", epochs, told)
	}
	eventually(t, fmt.Sprintf("the director has closed stream %d of %s", stream, first.ConnectionID), func() (bool, error) {
		open, err := c.witness.stream(t.Context(), first.ConnectionID, stream)
		return open == nil, err
	})
	completed, all, err := c.witness.swaps(t.Context(), first.ConnectionID, stream)
	errs = append(errs, err)
	if len(completed) != len(told) {
		complain("the client was told of %d swaps, the director completed %d: %+v", len(told), len(completed), all)
		return errors.Join(errs...)
	}
	for i, s := range completed {
		e := told[i]
		if s.From != e.FromWorker || s.To != e.ToWorker || s.Epoch != e.Epoch || s.Cut != e.Sequence || s.Kind != e.Kind {
			complain("swap %d is %+v at the director, %+v at the client", i+1, s, e)
		}
		if len(s.StateMS) == 0 {
			complain("no times for %+v", s)
		}
	}
	return errors.Join(errs...)
}

// once checks that a stream was moved exactly once, away from a worker that failed, for one of the causes.
func once(t *testing.T, events transcript, from string, causes ...string) {
	t.Helper()
	told := events.of("swapped")
	if len(told) != 1 || told[0].FromWorker != from || told[0].Kind != failover {
		t.Fatalf("want one swap, from %s; got %+v", from, told)
	}
	for _, cause := range causes {
		if told[0].Cause == cause {
			return
		}
	}
	t.Errorf("cause %q, want %s", told[0].Cause, strings.Join(causes, " or "))
}

var markov = sync.OnceValues(func() (engine.Engine, error) { return worker.Engine("markov") })

func engineFor(r request) (engine.Engine, error) {
	if r.state > 0 {
		return worker.EngineOf(config.Worker{Engine: "stateful", StateBytes: r.state})
	}
	return markov()
}

// faultFree returns the text that the engine gives when nothing goes wrong; TestNoFault holds it against the images.
func faultFree(r request) (string, error) {
	e, err := engineFor(r)
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	g, err := e.Open(ctx, engine.Request{Prompt: r.prompt, MaxTokens: r.tokens, Seed: r.seed}, nil, func(int, int) {})
	if err != nil {
		return "", err
	}
	defer g.Close() //nolint:errcheck // nothing depends on it
	var text strings.Builder
	for range r.tokens {
		token, err := g.Next(ctx)
		if err != nil {
			return "", err
		}
		text.Write(token.Text)
	}
	return text.String(), nil
}
