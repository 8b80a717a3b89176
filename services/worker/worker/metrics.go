package worker

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/connswap/connswap/shared/metrics"
)

// metrics answers with the worker's metrics, for Prometheus. All but those of the runtime are asked for when it is asked.
func (w *Worker) metrics() http.HandlerFunc {
	r := metrics.NewRegistry("worker")
	r.MustRegister(newCollector(w))
	if w.beside != nil {
		r.MustRegister(newUpstreamCollector(w.beside.monitor))
	}
	return metrics.Handler(r)
}

// collector reads what the worker counts anyway.
type collector struct {
	worker *Worker

	streams, capacity, directors, available, tokens, attached, cancelled, refused, bytes, snapshots *prometheus.Desc
}

func newCollector(w *Worker) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("connswap", "worker", name), help, labels, nil)
	}
	return &collector{
		worker:    w,
		streams:   desc("streams", "Streams that the worker has, of all directors."),
		capacity:  desc("capacity_streams", "Streams that it may have."),
		directors: desc("directors", "Directors at which it is registered."),
		available: desc("available", "1 while it takes streams, else 0."),
		tokens:    desc("chunks_total", "Chunks that it has made."),
		attached:  desc("attempts_total", "Attempts that directors have asked for."),
		cancelled: desc("attempts_cancelled_total", "Of these, those that directors took back."),
		refused:   desc("attempts_refused_total", "Of these, those that it refused, by why.", "code"),
		bytes:     desc("held_bytes", "Memory that prompts and text of directors take."),
		snapshots: desc("snapshot_bytes", "States of engines that are offered or kept, compressed."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.streams, c.capacity, c.directors, c.available, c.tokens, c.attached, c.cancelled, c.refused, c.bytes, c.snapshots,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	w, load, counters := c.worker, c.worker.sessions.Load(), c.worker.links.Counters()
	gauge := func(d *prometheus.Desc, value float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	available := 0.0
	if load.Available {
		available = 1
	}
	gauge(c.available, available)
	gauge(c.streams, float64(load.Sessions))
	gauge(c.capacity, float64(w.cfg.Capacity))
	gauge(c.directors, float64(w.registrar.Registered()))
	gauge(c.bytes, float64(load.Bytes))
	gauge(c.snapshots, float64(w.states.Bytes()))
	to <- prometheus.MustNewConstMetric(c.tokens, prometheus.CounterValue, float64(counters.Tokens))
	to <- prometheus.MustNewConstMetric(c.attached, prometheus.CounterValue, float64(counters.Attaches))
	to <- prometheus.MustNewConstMetric(c.cancelled, prometheus.CounterValue, float64(counters.Cancels))
	for code, n := range counters.Refusals {
		to <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(n), string(code))
	}
}
