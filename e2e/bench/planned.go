package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/connswap/connswap/shared/migration"
)

// plannedDefault is all that two cores and a few GiB of memory carry without measuring only how full they are.
const plannedDefault = "0/1,0/100,0/1000,64/1000,1024/1,1024/100,16384/1,16384/16"

// planned is one case of planned swaps: a line of two tables.
type planned struct {
	Class    string  `json:"class"`
	State    int     `json:"state_bytes"`
	Streams  int     `json:"streams"`
	Moves    int     `json:"moves"` // of all streams
	Samples  int     `json:"samples"`
	Interval float64 `json:"interval_ms"`

	Gap   summary            `json:"gap_ms"`
	Pause summary            `json:"pause_ms"` // the longest of each stream during a move
	Calm  summary            `json:"calm_ms"`  // the same while nothing moved, for as long
	Total summary            `json:"total_ms"` // of one swap
	All   summary            `json:"all_ms"`   // until all streams are moved
	Times map[string]summary `json:"state_ms"` // by state of the swap

	Lost  int `json:"failed_swaps"` // that were given up, and tried again
	False int `json:"false_swaps"`  // failovers: nothing failed

	Director float64 `json:"director_peak_mib"` // resident memory at most, during the moves
	Worker   float64 `json:"worker_peak_mib"`   // of the worker that had more
	Machine  string  `json:"machine"`
}

// parsePlanned reads KiB of state/streams.
func parsePlanned(text string) (planned, error) {
	p := planned{Class: "planned", Times: map[string]summary{}, Machine: machine()}
	var kib int
	if _, err := fmt.Sscanf(text, "%d/%d", &kib, &p.Streams); err != nil || kib < 0 || p.Streams < 1 {
		return p, fmt.Errorf("-planned=%s: want KiB of state/streams", text)
	}
	p.State, p.Interval = kib<<10, milliseconds(pace(p.Streams))
	return p, nil
}

// engine returns the settings for workers whose streams have the case's state.
func (p planned) engine() []string {
	if p.State == 0 {
		return []string{"CONNECTION_SWAP_WORKER_ENGINE=markov"}
	}
	return []string{"CONNECTION_SWAP_WORKER_ENGINE=stateful", fmt.Sprintf("CONNECTION_SWAP_WORKER_STATE_BYTES=%d", p.State)}
}

func (o options) planned(ctx context.Context, r *report, cases []string) error {
	var lines []planned
	for _, text := range cases {
		p, err := parsePlanned(text)
		if err != nil {
			return err
		}
		p.Moves = o.moves
		if p.Streams > 1 {
			p.Moves = max(1, o.moves/5)
		}
		if err := o.shuttle(ctx, &p); err != nil {
			return fmt.Errorf("planned swaps of %s: %w", text, err)
		}
		if err := r.add(p); err != nil {
			return err
		}
		lines = append(lines, p)
	}
	for _, p := range lines {
		r.print(timesTitle, p.times())
	}
	return nil
}

func (p planned) title() string {
	return fmt.Sprintf("%-7s %9s %7s %5s %8s | %8s %8s %8s | %8s %8s | %8s | %6s %5s | %8s %8s",
		"planned", "state KiB", "streams", "moves", "interval", "gap p50", "p99", "max ms", "pause", "calm p99",
		"all p50", "failed", "false", "director", "worker MiB")
}

func (p planned) String() string {
	return fmt.Sprintf("%-7s %9d %7d %5d %6.0fms | %8.1f %8.1f %8.1f | %8.1f %8.1f | %8.1f | %6d %5d | %8.0f %8.0f",
		"", p.State>>10, p.Streams, p.Moves, p.Interval, p.Gap.P50, p.Gap.P99, p.Gap.Max, p.Pause.P99, p.Calm.P99,
		p.All.P50, p.Lost, p.False, p.Director, p.Worker)
}

// shown are the states of which the times are printed; the others take no time, or none of ours.
var shown = []migration.State{
	migration.Initiating, migration.Preparing, migration.CapturingState, migration.TransferringState,
	migration.Pivoting, migration.Verifying,
}

var timesTitle = func() string {
	title := fmt.Sprintf("%-7s %9s %7s | %13s", "p50 p99", "state KiB", "streams", "whole swap")
	for _, state := range shown {
		title += fmt.Sprintf(" | %13s", strings.TrimSuffix(state.String(), "State"))
	}
	return title
}()

// times is the line of the second table.
func (p planned) times() string {
	line := fmt.Sprintf("%-7s %9d %7d | %6.1f %6.1f", "ms", p.State>>10, p.Streams, p.Total.P50, p.Total.P99)
	for _, state := range shown {
		t := p.Times[state.String()]
		line += fmt.Sprintf(" | %6.1f %6.1f", t.P50, t.P99)
	}
	return line
}
