// Package metrics counts what happens in a director, for Prometheus. What is rare it learns from events, what is frequent it
// is told once for each batch, and what there is at present it asks for when it is asked itself.
package metrics

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/shared/metrics"
)

// Metrics is safe for concurrent use. No label has a value that belongs to one stream, client or worker; that of a key is one
// that the operator has written.
type Metrics struct {
	Registry *prometheus.Registry

	// Stalls counts how often a worker had to wait for a client to read.
	Stalls atomic.Uint64

	opened, fenced, resumed      prometheus.Counter
	chunks, tokens               prometheus.Counter
	finished, handovers, lost    *prometheus.CounterVec
	refused, limits, answered    *prometheus.CounterVec
	reloads                      *prometheus.CounterVec
	states, gaps                 *prometheus.HistogramVec
	first, between, passed, away prometheus.Histogram
}

// New returns the metrics of a director of which load says what there is at present.
func New(load func() Load) *Metrics {
	m := &Metrics{
		Registry: metrics.NewRegistry("director"),
		opened:   counter("streams_opened_total", "Streams that clients have asked for."),
		fenced:   counter("chunks_fenced_total", "Chunks that were dropped, since their worker had lost the stream."),
		resumed:  counter("streams_resumed_total", "Streams that went on over another connection of their client."),
		chunks:   counter("chunks_total", "Chunks that workers have sent."),
		tokens:   counter("tokens_total", "Tokens that these stand for."),
		finished: counters("streams_finished_total", "Streams that have ended, by how: done, failed or cancelled.", "state"),
		handovers: counters("handovers_total", "Handovers that are over, by kind (placement, failover, planned), cause and result.",
			"kind", "cause", "result"),
		lost:     counters("worker_losses_total", "Links to workers that were lost, by the signal that told it first.", "cause"),
		refused:  counters("migration_tokens_refused_total", "Migration tokens that this director refused, by why.", "code"),
		limits:   counters("limits_hit_total", "Requests that were refused for want of something, by code.", "code"),
		answered: counters("http_requests_total", "Requests over HTTP that were answered, by API and status. A stream counts when it begins to be.", "api", "status"),
		reloads:  counters("config_reloads_total", "Files of the configuration that changed, by which (config, keys) and result: taken, or refused, and what was read before stays.", "file", "result"),
		states:   histograms("handover_state_seconds", "Time that handovers spent in a state.", "kind", "state"),
		gaps:     histograms("handover_gap_seconds", "Time without a chunk at handovers, beyond the usual one.", "kind"),
		first:    histogram("first_token_seconds", "Time from a request to its first chunk."),
		between:  histogram("token_interval_seconds", "Usual time between the chunks of a stream, sampled."),
		passed:   histogram("batch_seconds", "Time from the arrival of a batch of chunks until all of it was handed on."),
		away:     histogram("client_away_seconds", "Time for which clients that came back had been lost."),
	}
	m.Registry.MustRegister(
		m.opened, m.fenced, m.resumed, m.chunks, m.tokens, m.finished, m.handovers, m.lost, m.refused, m.limits, m.answered, m.reloads,
		m.states, m.gaps, m.first, m.between, m.passed, m.away, newPresent(load, &m.Stalls),
	)
	for _, file := range []string{"config", "keys"} {
		m.reloads.WithLabelValues(file, taken) // from 0: the first one counts for an alert
		m.reloads.WithLabelValues(file, refused)
	}
	return m
}

const namespace = "connswap"

// Results of a reload.
const (
	taken   = "taken"
	refused = "refused"
)

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: metrics.Buckets})
}

func histograms(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: metrics.Buckets}, labels)
}

// Handler answers with all metrics.
func (m *Metrics) Handler() http.HandlerFunc { return metrics.Handler(m.Registry) }

// Observe takes note of an event.
func (m *Metrics) Observe(e event.Event) {
	switch b := e.Body.(type) {
	case event.StreamOpened:
		m.opened.Inc()
	case event.StreamPlaced:
		m.first.Observe(b.WaitMS / 1000)
	case event.StreamMoved:
		m.gaps.WithLabelValues(b.Swap).Observe(b.GapMS / 1000)
	case event.StreamResumed:
		m.resumed.Inc()
		m.away.Observe(b.AwayMS / 1000)
	case event.StreamFinished:
		m.finished.WithLabelValues(b.State).Inc()
		m.fenced.Add(float64(b.Fenced))
	case event.HandoverEnded:
		r := b.Record
		m.handovers.WithLabelValues(r.Kind, cause(r.Cause), r.State).Inc()
		for state, spent := range r.StateMS {
			m.states.WithLabelValues(r.Kind, state).Observe(spent / 1000)
		}
	case event.WorkerLost:
		m.lost.WithLabelValues(cause(b.Cause)).Inc()
	case event.TokenRefused:
		m.refused.WithLabelValues(b.Code).Inc()
	case event.LimitHit:
		m.limits.WithLabelValues(b.Code).Inc()
	}
}

// Answered takes note of a request for one of OpenAI's APIs, and the status with which its answer began.
func (m *Metrics) Answered(api string, status int) {
	m.answered.WithLabelValues(api, strconv.Itoa(status)).Inc()
}

// Reloaded takes note of a file of the configuration (config or keys) that changed, and of what was wrong with it.
func (m *Metrics) Reloaded(file string, err error) {
	m.reloads.WithLabelValues(file, result(err)).Inc()
}

func result(err error) string {
	if err != nil {
		return refused
	}
	return taken
}

// cause makes a label of a cause: causes are a few sentences of the director's own, which begin with what matters.
func cause(text string) string {
	text, _, _ = strings.Cut(text, ":")
	return text
}

// Batch takes note of chunks that came at once, and of how long it took to hand them on.
func (m *Metrics) Batch(chunks, tokens int, took time.Duration) {
	m.chunks.Add(float64(chunks))
	m.tokens.Add(float64(tokens))
	m.passed.Observe(took.Seconds())
}

// Interval takes note of the usual time between the chunks of a stream.
func (m *Metrics) Interval(d time.Duration) { m.between.Observe(d.Seconds()) }

// Fenced takes note of chunks that came for streams which had left their worker.
func (m *Metrics) Fenced(chunks uint64) { m.fenced.Add(float64(chunks)) }
