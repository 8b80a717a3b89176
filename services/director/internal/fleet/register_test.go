package fleet_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
)

// slow takes its time to find out that it reaches nobody, whatever the context says.
type slow struct{}

func (slow) Dial(context.Context, link.Peer) (link.Conn, error) {
	time.Sleep(time.Second)
	return nil, errors.New("nobody there")
}

func register(t *testing.T, f *fleet.Fleet, instance string) *fleet.Registration {
	t.Helper()
	r, err := f.Register(link.Peer{Label: "a", Instance: instance})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func inFleet(t *testing.T, test func(t *testing.T, f *fleet.Fleet)) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(link.Config{ProgressTimeout: time.Second}, fleet.Deps{Dialer: slow{}, Log: zap.NewNop(), Clock: &clock.StallProof{}})
		defer f.Close()
		test(t, f)
	})
}

// A worker that hung for so long that its registration lapsed registers again while the director is still busy
// giving it up. It must not be forgotten: it has no reason to come a third time.
func TestRegisterWhileLeaving(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet.Fleet) {
		lapsed := register(t, f, "1")
		time.Sleep(100 * time.Millisecond) // the supervisor dials
		lapsed.Close()
		again := register(t, f, "1")
		time.Sleep(time.Minute)
		if workers := f.Workers(); len(workers) != 1 || !again.Heartbeat(0) {
			t.Errorf("the fleet has %+v", workers)
		}
		again.Close()
		time.Sleep(time.Minute)
		if workers := f.Workers(); len(workers) != 0 {
			t.Errorf("the fleet still has %+v", workers)
		}
	})
}

// An instance that was replaced learns of it at its next heartbeat.
func TestReplacedInstanceIsTold(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet.Fleet) {
		old := register(t, f, "1")
		time.Sleep(100 * time.Millisecond)
		if !old.Heartbeat(0) {
			t.Error("replaced by nobody")
		}
		younger := register(t, f, "2")
		if old.Heartbeat(0) || !younger.Heartbeat(0) {
			t.Error("both instances count")
		}
		old.Close()
		if workers := f.Workers(); len(workers) != 1 || workers[0].Instance != "2" {
			t.Errorf("the fleet has %+v", workers)
		}
	})
}
