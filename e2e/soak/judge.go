package main

import "fmt"

// verdict is what a run says of one quantity of one process.
type verdict string

// Verdicts.
const (
	flat    verdict = "flat"    // whatever it grew by is less than what is allowed
	growing verdict = "GROWS"   // by more than that, beyond what noise explains
	unclear verdict = "unclear" // noise hides which of the two
)

// quantity is something that has to stay as it is.
type quantity struct {
	name string
	unit string

	// By so much it may grow in a run, all that noise hides included: tables that are bounded fill.
	least float64 // in unit,
	part  float64 // or this part of its mean, if that is more
}

// quantities are what is watched of each process.
var quantities = []quantity{
	{"heap", "MiB", 4, 0.1},
	{"memory", "MiB", 8, 0.15},
	{"goroutines", "", 10, 0.05},
	{"descriptors", "", 3, 0.05},
}

// fewest is how many points a line needs that says anything.
const fewest = 20

// judge says what the points of a run say.
func (q quantity) judge(points []point) verdict {
	if len(points) < fewest {
		return unclear
	}
	f := fit(points)
	seconds := points[len(points)-1].at - points[0].at
	least, most := f.growth(seconds)
	switch allowed := max(q.least, q.part*f.mean); {
	case least > allowed:
		return growing
	case most <= allowed:
		return flat
	}
	return unclear
}

// line shows the points of a run, and what they say.
func (q quantity) line(process string, points []point) (text string, v verdict) {
	v = q.judge(points)
	if len(points) < fewest {
		return fmt.Sprintf("%-10s %-12s only %d samples: %s", process, q.name, len(points), v), v
	}
	f := fit(points)
	return fmt.Sprintf("%-10s %-12s %9.2f %9.2f ± %-9.2f %-4s %s", process, q.name, f.mean, f.slope*3600, f.error*3600, q.unit, v), v
}
