package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What honest clients may have to bear.
const (
	worstGap = 100 * time.Millisecond // of 99 in 100 gaps between tokens, which come every 20 ms
	mostLog  = 100                    // KiB a second
)

// outcome is how honest clients fared under an attack.
type outcome struct {
	attack  string
	streams int
	refused int // for want of room
	failed  int // in another way
	reason  string
	firsts  []time.Duration // from the dial to the first token
	gaps    []time.Duration // between tokens
	asked   int             // for the director's health
	ready   int             // answers in time that said it is well
	memory  float64         // of the director at most, in MiB
	log     float64         // KiB a second
}

const heading = "attack      streams refused failed  first: p50 s, max   gap: p50 ms      p99      max  healthy  memory MiB  log KiB/s"

// String is a line of the table that heading begins.
func (o outcome) String() string {
	verdict := "ok"
	if harm := o.harm(); len(harm) > 0 {
		verdict = "HARM: " + strings.Join(harm, "; ")
	}
	return fmt.Sprintf("%-11s %7d %7d %6d %13.2f %5.2f %13.1f %8.1f %8.1f %4d/%-4d %10.0f %10.1f  %s", o.attack, o.streams, o.refused, o.failed,
		quantile(o.firsts, 0.5)/1000, quantile(o.firsts, 1)/1000, quantile(o.gaps, 0.5), quantile(o.gaps, 0.99), quantile(o.gaps, 1), o.ready, o.asked, o.memory, o.log, verdict)
}

// quantile returns the time that so many are not longer than, in milliseconds.
func quantile(times []time.Duration, part float64) float64 {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return float64(sorted[int(part*float64(len(sorted)-1))]) / float64(time.Millisecond)
}

// harm says in which ways honest clients were worse off than they may be.
func (o outcome) harm() (harm []string) {
	if o.refused > 0 || o.failed > 0 {
		harm = append(harm, fmt.Sprintf("%d of %d streams were not served (%s)", o.refused+o.failed, o.streams, o.reason))
	}
	if o.streams == 0 || len(o.gaps) == 0 {
		harm = append(harm, "no stream at all")
	}
	if quantile(o.gaps, 0.99) > float64(worstGap.Milliseconds()) {
		harm = append(harm, fmt.Sprintf("tokens came late: the goal is %v", worstGap))
	}
	if o.ready < o.asked || o.asked == 0 {
		harm = append(harm, "no answer about its health, or a bad one")
	}
	if o.log > mostLog {
		harm = append(harm, fmt.Sprintf("it can fill a disk: the goal is %d KiB/s", mostLog))
	}
	return harm
}
