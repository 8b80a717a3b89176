package worker

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/connswap/connswap/services/worker/internal/upstream/monitor"
)

// upstreamCollector reads what is known of the inference server that the worker stands beside.
type upstreamCollector struct {
	monitor *monitor.Monitor

	up, running, waiting, cache, others, faults, probes, model *prometheus.Desc
}

func newUpstreamCollector(m *monitor.Monitor) *upstreamCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("connswap", "worker_upstream", name), help, labels, nil)
	}
	return &upstreamCollector{
		monitor: m,
		up:      desc("up", "1 while the inference server is ready, else 0."),
		running: desc("running_requests", "Requests that the server generates for, as it says; absent where it does not."),
		waiting: desc("waiting_requests", "Requests that wait at the server, as it says; absent where it does not."),
		cache:   desc("cache_usage_ratio", "Part of the server's key-value cache that is used, 0 to 1; absent where it does not say what it has to do."),
		others:  desc("other_requests", "Requests that the server has of others than this worker."),
		faults:  desc("faults_total", "Attempts at the server that failed, by how.", "fault"),
		probes:  desc("probes_total", "Measurements of what a model can be relied on for."),
		model:   desc("model_info", "1 for each model that is offered, with what was measured of it.", "model", "class"),
	}
}

// Describe implements prometheus.Collector.
func (c *upstreamCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.running, c.waiting, c.cache, c.others, c.faults, c.probes, c.model} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *upstreamCollector) Collect(to chan<- prometheus.Metric) {
	s := c.monitor.Status()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	up := 0.0
	if s.Ready() {
		up = 1
	}
	gauge(c.up, up)
	gauge(c.others, float64(c.monitor.Others()))
	if s.Ready() && s.Load.Known {
		gauge(c.running, float64(s.Load.Running))
		gauge(c.waiting, float64(s.Load.Waiting))
		gauge(c.cache, s.Load.Cache)
	}
	for _, m := range s.Models {
		gauge(c.model, 1, strings.ToValidUTF8(m.Name, "?"), string(m.Abilities.Class))
	}
	for fault, n := range s.Faults {
		to <- prometheus.MustNewConstMetric(c.faults, prometheus.CounterValue, float64(n), fault)
	}
	to <- prometheus.MustNewConstMetric(c.probes, prometheus.CounterValue, float64(s.Probes))
}
