package placement_test

import (
	"fmt"
	"testing"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/shared/migration"
)

// crowd is many sessions that wait and are granted. Each is told twice at most.
type crowd struct{ granted []*placement.Request }

func (c *crowd) Granted(r *placement.Request, _ *link.Link)                   { c.granted = append(c.granted, r) }
func (c *crowd) Waiting(*placement.Request, string)                           {}
func (c *crowd) Lost(*placement.Request, *link.Link, link.Cause) (again bool) { return true }

// placeAll has n streams wait: a third for an engine that is full, a third for one that has no worker yet, a third to
// be moved to that. Then that worker comes up; then places at the full one become free, one after the other. It returns
// how often a worker was looked at.
func placeAll(tb testing.TB, n int) uint64 {
	const others = 8
	w := newWorld(tb, placement.Config{MaxHandovers: 16, MaxPerTarget: 16})
	defer w.close()
	w.worker("full", n, runs("x"))
	for i := range others {
		w.worker(fmt.Sprint("other-", i), 1, runs("z"))
	}
	var c, served crowd
	serve := func(s *crowd, kind migration.Kind, fingerprint string, count int) {
		for i := range count {
			r := &placement.Request{Session: s, ID: uint64(i + 1), Started: int64(i % 7), Kind: kind}
			r.Need.Fingerprint, r.Need.Avoid = fingerprint, "full"
			w.Queue(r)
		}
	}
	serve(&served, migration.Placement, "x", n)
	serve(&c, migration.Placement, "x", n/3)
	serve(&c, migration.Placement, "y", n/3)
	serve(&c, migration.Planned, "y", n/3)
	if len(served.granted) != n || len(c.granted) != 0 {
		tb.Fatalf("%d serve, %d of those that wait were granted a place", len(served.granted), len(c.granted))
	}
	w.worker("room", n, runs("y"))
	for i := 0; i < len(c.granted); i++ { // those that are granted meanwhile among them
		w.HandoverEnded(c.granted[i])
	}
	if len(c.granted) != 2*(n/3) {
		tb.Fatalf("%d of %d were granted a place at the new worker", len(c.granted), 2*(n/3))
	}
	for _, r := range served.granted {
		w.Release(r)
	}
	if len(c.granted) != 3*(n/3) {
		tb.Fatalf("%d of %d were granted a place in the end", len(c.granted), 3*(n/3))
	}
	return w.Examined()
}

// TestWorkIsLinear counts how often a worker is looked at for each stream that waits, of a thousand and of a hundred
// thousand: it must not grow with the number of those that wait.
func TestWorkIsLinear(t *testing.T) {
	few, many := 1000, 100_000
	if testing.Short() {
		many = 10_000
	}
	before, after := float64(placeAll(t, few))/float64(few), float64(placeAll(t, many))/float64(many)
	t.Logf("%.1f and %.1f looks for each stream", before, after)
	if after > 1.1*before {
		t.Errorf("with %d streams a worker was looked at %.1f times for each, with %d %.1f times", few, before, many, after)
	}
}

// BenchmarkPlacing shows the time for each stream that waits.
func BenchmarkPlacing(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint("waiting=", n), func(b *testing.B) {
			for b.Loop() {
				placeAll(b, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/stream")
		})
	}
}

// BenchmarkOtherEngine places one stream, and takes it back, while so many wait for a full worker with another engine.
func BenchmarkOtherEngine(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprint("waiting=", n), func(b *testing.B) {
			w := newWorld(b, usual)
			defer w.close()
			w.worker("full", 1, runs("x"))
			w.worker("room", 1, runs("y"))
			var c crowd
			for i := range n + 1 {
				w.Queue(&placement.Request{Session: &c, ID: uint64(i), Need: need{Fingerprint: "x"}})
			}
			one := &placement.Request{Session: &c, Need: need{Fingerprint: "y"}}
			for b.Loop() {
				w.Queue(one)
				w.Release(one)
				c.granted = c.granted[:0]
			}
		})
	}
}
