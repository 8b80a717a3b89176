package fleet_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// placement counts what it is told.
type placement struct{ up, changed, remodelled, reported, declined, failed, down int }

func (p *placement) Up(*link.Link)               { p.up++ }
func (p *placement) Changed(*link.Link)          { p.changed++ }
func (p *placement) Remodelled(*link.Link)       { p.remodelled++ }
func (p *placement) Reported(*link.Link, int)    { p.reported++ }
func (p *placement) Declined(*link.Link)         { p.declined++ }
func (p *placement) Failed(*link.Link)           { p.failed++ }
func (p *placement) Down(*link.Link, link.Cause) { p.down++ }

// TestDrainedLabelStaysDrained has the drained worker's process replaced: its label is out of use, not its process.
func TestDrainedLabelStaysDrained(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet.Fleet) {
		f.Serve(&placement{})
		first := register(t, f, "1")
		if err := f.Drain("a", true); err != nil {
			t.Fatal(err)
		}
		first.Close()
		register(t, f, "2")
		if workers := f.Workers(); len(workers) != 1 || workers[0].Instance != "2" || !workers[0].Draining {
			t.Errorf("after it registered anew: %+v", workers)
		}
		if err := f.Undrain("a"); err != nil {
			t.Error(err)
		}
		if workers := f.Workers(); workers[0].Draining {
			t.Error("still drained")
		}
	})
}

// patient dials until it must not any more.
type patient struct{}

func (patient) Dial(ctx context.Context, _ link.Peer) (link.Conn, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestDrainMarkEnds has the drained worker stay away: for less than a day the mark is kept, then it is forgotten.
func TestDrainMarkEnds(t *testing.T) {
	for away, want := range map[time.Duration]bool{23 * time.Hour: true, 25 * time.Hour: false} {
		synctest.Test(t, func(t *testing.T) {
			f := fleet.New(link.Config{ProgressTimeout: time.Hour}, fleet.Deps{Dialer: patient{}, Log: zap.NewNop(), Clock: &clock.StallProof{}})
			defer f.Close()
			f.Serve(&placement{})
			first := register(t, f, "1")
			if err := f.Drain("a", true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(48 * time.Hour) // while it is there, the mark stays
			first.Close()
			<-first.Done()
			time.Sleep(away)
			register(t, f, "2")
			if f.Drained("a") != want {
				t.Errorf("after %v drained: %v", away, !want)
			}
		})
	}
}

// TestWorkerAsksToBeEmptied says so on the link, with and without somebody to hear it.
func TestWorkerAsksToBeEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		var told placement
		f := fleettest.New(fleet.Deps{Draining: func(label, instance string) { asked = append(asked, label+"/"+instance) }})
		defer f.Close()
		f.Serve(&told)
		a, err := f.Connect(link.Peer{Label: "a", Instance: "1"})
		if err != nil {
			t.Fatal(err)
		}
		report := func(m *wirepb.WorkerStatus) {
			t.Helper()
			if err := a.Report(m); err != nil {
				t.Fatal(err)
			}
		}
		report(&wirepb.WorkerStatus{})
		report(&wirepb.WorkerStatus{Available: true})
		report(&wirepb.WorkerStatus{Failed: true, Draining: true}) // its streams are gone already
		if len(asked) != 0 || told != (placement{up: 1, changed: 2, failed: 1}) {
			t.Errorf("%v asked, the placement was told %+v", asked, told)
		}
		report(&wirepb.WorkerStatus{Draining: true, Reason: "shutting down"})
		if len(asked) != 1 || asked[0] != "a/1" {
			t.Errorf("%v asked", asked)
		}
		if workers := f.Workers(); workers[0].Draining || workers[0].Available || workers[0].Reason != "shutting down" {
			t.Errorf("its label is drained, or it takes streams, or nobody sees why not: %+v", workers[0])
		}
	})
}

// TestPlacementIsTold of what changes at a worker whose link is up: its own count of streams, and an operator's marks.
func TestPlacementIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told placement
		f := fleettest.New(fleet.Deps{})
		defer f.Close()
		f.Serve(&told)
		peer := link.Peer{Label: "a", Instance: "1"}
		if _, err := f.Connect(peer); err != nil {
			t.Fatal(err)
		}
		again, err := f.Register(peer)
		if err != nil {
			t.Fatal(err)
		}
		if again.Heartbeat(3); told.reported != 1 {
			t.Errorf("told %d times of a heartbeat", told.reported)
		}
		if err := f.Drain("a", true); err != nil || told.changed != 1 {
			t.Errorf("told %d times of a drain, %v", told.changed, err)
		}
		if err := f.Undrain("a"); err != nil || told.changed != 2 {
			t.Errorf("told %d times after its end, %v", told.changed, err)
		}
	})
}
