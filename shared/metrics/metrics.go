// Package metrics is what the metrics of all roles have in common: a registry of their own, with those of the Go runtime and
// of the process, and how it is read. It is Prometheus' own client, which every monitoring system understands.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/connswap/connswap/shared/wire"
)

// Buckets are those of times, in seconds: from 0.5 ms to a minute.
var Buckets = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// NewRegistry returns a registry that says how the process is, and of which build it is.
func NewRegistry(role string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "connswap_build_info", Help: "1, with the role and the build of the process.",
			ConstLabels: prometheus.Labels{"role": role, "build": wire.Build},
		}, func() float64 { return 1 }),
	)
	return r
}

// Handler returns what answers with all metrics of a registry.
func Handler(r *prometheus.Registry) http.HandlerFunc {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2}).ServeHTTP
}
