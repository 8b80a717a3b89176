package api

import (
	"bytes"
	"context"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// gauges are the names of metrics that say what a server has to do.
type gauges struct {
	running, waiting string
	cache            []string // by version
}

// metrics reads a server's Prometheus metrics. A server without them is one whose load is not known.
func (c *client) metrics(ctx context.Context, names gauges) (Load, error) {
	doc, err := c.document(ctx, message{path: "/metrics"})
	if isFault(err, Denied) {
		return Load{}, nil
	}
	if err != nil {
		return Load{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(doc))
	if err != nil {
		return Load{}, &Error{Fault: Broken, Message: "the metrics cannot be read", Err: err}
	}
	running, known := sum(families[names.running])
	waiting, _ := sum(families[names.waiting])
	load := Load{Known: known, Running: int(running), Waiting: int(waiting)}
	for _, name := range names.cache {
		if family := families[name]; family != nil {
			for _, m := range family.GetMetric() {
				load.Cache = max(load.Cache, min(1, value(m)))
			}
			break
		}
	}
	return load, nil
}

// sum adds up a metric over its labels: models, and engines that run beside each other.
func sum(family *dto.MetricFamily) (total float64, ok bool) {
	for _, m := range family.GetMetric() {
		total += value(m)
	}
	return max(0, total), family != nil
}

func value(m *dto.Metric) float64 {
	switch {
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	}
	return m.GetUntyped().GetValue()
}
