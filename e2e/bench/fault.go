package main

import "fmt"

// result is one line of the table of faults.
type result struct {
	Class    string  `json:"class"`
	Streams  int     `json:"streams"`
	Faults   int     `json:"faults"`
	Samples  int     `json:"samples"` // faults × streams
	Interval float64 `json:"interval_ms"`
	Gap      summary `json:"gap_ms"`
	Outage   summary `json:"outage_ms"`
	False    int     `json:"false_swaps"` // swaps beyond one per stream and fault
	Machine  string  `json:"machine"`
}

func (r result) title() string {
	return fmt.Sprintf("%-10s %8s %7s %9s | %8s %8s %8s | %8s %8s %8s | %s", "class", "streams", "faults", "interval",
		"gap p50", "p99", "max ms", "out. p50", "p99", "max ms", "false swaps")
}

func (r result) String() string {
	return fmt.Sprintf("%-10s %8d %7d %7.0fms | %8.1f %8.1f %8.1f | %8.1f %8.1f %8.1f | %d", r.Class, r.Streams, r.Faults, r.Interval,
		r.Gap.P50, r.Gap.P99, r.Gap.Max, r.Outage.P50, r.Outage.P99, r.Outage.Max, r.False)
}
