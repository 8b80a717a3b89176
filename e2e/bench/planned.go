package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/connswap/connswap/shared/migration"
)

// plannedDefault has states of 0, 1 and 16 MiB at 1, 100 and 1,000 streams, and between them a small one.
const plannedDefault = "0/1,0/100,0/1000,64/1000,1024/1,1024/100,1024/1000,16384/1,16384/100,16384/1000"

const (
	// large is how many bytes of states make a case that is moved a few times only.
	large = 1 << 30
	// huge is how many make one that is moved once. Go lets memory grow to twice of what is in use before it collects,
	// which such a case cannot afford: there it does at a tenth more.
	huge = 8 << 30
)

// moves returns how often all streams of a case are moved.
func (p planned) moves(of int) int {
	switch all := p.State * p.Streams; {
	case all >= huge:
		return 1
	case all >= large:
		return max(1, of/15)
	case p.Streams > 1:
		return max(1, of/5)
	default:
		return of
	}
}

// fits reports whether the machine has the memory: for the states, what is on its way, and checkpoints.
func (p planned) fits() (need, have int, err error) {
	have, err = freeMemory()
	need = p.State * p.Streams * 14 / 10
	return need, have, err
}

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

	Lost  int            `json:"failed_swaps"` // that were given up, and tried again
	Why   map[string]int `json:"failed_why"`
	False int            `json:"false_swaps"` // failovers: nothing failed

	Director float64 `json:"director_peak_mib"` // resident memory at most, during the moves
	Worker   float64 `json:"worker_peak_mib"`   // of the worker that had more
	Machine  string  `json:"machine"`
}

// parsePlanned reads KiB of state/streams.
func parsePlanned(text string) (planned, error) {
	p := planned{Class: "planned", Times: map[string]summary{}, Why: map[string]int{}, Machine: machine()}
	var kib int
	if _, err := fmt.Sscanf(text, "%d/%d", &kib, &p.Streams); err != nil || kib < 0 || p.Streams < 1 {
		return p, fmt.Errorf("-planned=%s: want KiB of state/streams", text)
	}
	p.State, p.Interval = kib<<10, milliseconds(intervalFor(p.Streams))
	return p, nil
}

// engine returns the settings for workers whose streams have so many bytes of state.
func engine(state, streams int) []string {
	if state == 0 {
		return []string{"CONNECTION_SWAP_WORKER_ENGINE=markov"}
	}
	env := []string{"CONNECTION_SWAP_WORKER_ENGINE=stateful", fmt.Sprintf("CONNECTION_SWAP_WORKER_STATE_BYTES=%d", state)}
	if state*streams >= huge {
		env = append(env, "GOGC=10")
	}
	return env
}

func (o options) planned(ctx context.Context, r *report) error {
	var lines []planned
	for _, text := range o.cases {
		p, err := parsePlanned(text)
		if err != nil {
			return err
		}
		need, have, err := p.fits()
		if err != nil {
			return err
		}
		if need > have {
			fmt.Printf("planned %9d %7d   left out: it needs %d GiB of memory, %d are free\n", p.State>>10, p.Streams, need>>30, have>>30)
			continue
		}
		p.Moves = p.moves(o.moves)
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
	for _, p := range lines {
		for why, n := range p.Why {
			fmt.Printf("failed  %9d %7d   %d × %s\n", p.State>>10, p.Streams, n, why)
		}
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
