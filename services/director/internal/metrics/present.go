package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Load is what there is at present.
type Load struct {
	Streams     map[string]int // by state: streaming, moving, waiting
	Connections int            // of clients, those that are lost and may come back among them
	Workers     map[string]int // by state: ready, draining, unavailable, unconnected
	Paths       Paths
	Keys        []Key
}

// Key is what all that came with a key took so far.
type Key struct {
	Name                           string // of a file that the operator writes, which bounds how many there are
	Requests                       uint64
	PromptTokens, CompletionTokens uint64
}

// Paths are the links to workers.
type Paths struct {
	Links      int
	RTT, Worst time.Duration // smoothed, on average, and of the link where it is longest

	Sent, Lost uint64 // packets, of links that are lost too
}

// present asks for the load when it is asked.
type present struct {
	load   func() Load
	stalls *atomic.Uint64

	streams, connections, workers, links, rtt, worst, sent, lost, stalled, asked, took *prometheus.Desc
}

func newPresent(load func() Load, stalls *atomic.Uint64) *present {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	return &present{
		load: load, stalls: stalls,
		streams:     desc("streams", "Streams that run, by state: streaming, moving or waiting.", "state"),
		connections: desc("client_connections", "Connections of clients."),
		workers:     desc("workers", "Registered workers, by state.", "state"),
		links:       desc("links", "Links to workers that are up."),
		rtt:         desc("link_rtt_mean_seconds", "Smoothed round trip time of the links to workers, on average."),
		worst:       desc("link_rtt_max_seconds", "The same of the link where it is longest."),
		sent:        desc("link_packets_sent_total", "Packets sent to workers."),
		lost:        desc("link_packets_lost_total", "Of these, those that were found lost."),
		asked:       desc("key_requests_total", "Requests that came with a key and were let in, by the name of the key.", "key"),
		took:        desc("key_tokens_total", "Tokens of the streams of a key, by its name and kind: prompt or completion.", "key", "kind"),
		stalled:     desc("credit_stalls_total", "How often a worker had to wait for a client to read."),
	}
}

// Describe implements prometheus.Collector.
func (p *present) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.streams, p.connections, p.workers, p.links, p.rtt, p.worst, p.sent, p.lost, p.stalled, p.asked, p.took} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (p *present) Collect(to chan<- prometheus.Metric) {
	load := p.load()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	for _, key := range load.Keys {
		counter(p.asked, key.Requests, key.Name)
		counter(p.took, key.PromptTokens, key.Name, "prompt")
		counter(p.took, key.CompletionTokens, key.Name, "completion")
	}
	for state, n := range load.Streams {
		gauge(p.streams, float64(n), state)
	}
	for state, n := range load.Workers {
		gauge(p.workers, float64(n), state)
	}
	gauge(p.connections, float64(load.Connections))
	gauge(p.links, float64(load.Paths.Links))
	gauge(p.rtt, load.Paths.RTT.Seconds())
	gauge(p.worst, load.Paths.Worst.Seconds())
	counter(p.sent, load.Paths.Sent)
	counter(p.lost, load.Paths.Lost)
	counter(p.stalled, p.stalls.Load())
}
