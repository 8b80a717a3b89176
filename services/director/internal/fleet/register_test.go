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
	"github.com/connswap/connswap/services/director/internal/fleet/fleettest"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/wire"
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

// TestLabelsOfOneCertificate: one that names nobody is good for so many labels, those of a worker that registers again not
// counted twice; one that names a worker is not counted, and keeps the label from all others.
func TestLabelsOfOneCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(link.Config{ProgressTimeout: time.Second}, fleet.Deps{
			Dialer: slow{}, Log: zap.NewNop(), Clock: &clock.StallProof{}, LabelsPerCertificate: 2,
		})
		defer f.Close()
		try := func(label, instance, certificate string, named bool, want wire.Code) {
			t.Helper()
			_, err := f.Register(link.Peer{Label: label, Instance: instance, Certificate: certificate, Named: named})
			refused := new(wire.Error)
			if errors.As(err, &refused); (err == nil) != (want == "") || refused.Code != want {
				t.Errorf("%s: %v, want %q", label, err, want)
			}
		}
		try("a", "1", "x", false, "")
		try("b", "1", "x", false, "")
		try("a", "1", "x", false, "") // again
		try("c", "1", "x", false, wire.CodeLimit)
		try("c", "1", "y", false, "") // another certificate
		try("d", "1", "x", true, "")
		try("d", "2", "x", false, wire.CodeLabelInUse)
		try("d", "2", "y", false, wire.CodeLabelInUse)
		try("d", "1", "y", false, wire.CodeLabelInUse) // the instance is no secret
		try("a", "2", "z", true, "")                   // whom the certificate names gets the label
		try("e", "1", "x", false, "")                  // and leaves one of the others'
	})
}

// TestOtherModels: the same process may have other models when it registers again; its link stays, and whoever places streams is told, of
// what is new only.
func TestOtherModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told placement
		f := fleettest.New(fleet.Deps{})
		defer f.Close()
		f.Serve(&told)
		peer := link.Peer{Label: "a", Instance: "1", Server: "vllm 1", Models: []routing.Model{{Name: "m", Fingerprint: "x"}}}
		a, err := f.Connect(peer)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range []struct {
			server, fingerprint string
			remodelled          int
		}{{"vllm 1", "x", 0}, {"vllm 2", "x", 0}, {"vllm 2", "y", 1}, {"vllm 2", "y", 1}} {
			peer.Server, peer.Models = c.server, []routing.Model{{Name: "m", Fingerprint: c.fingerprint}}
			if _, err := f.Register(peer); err != nil {
				t.Fatal(err)
			}
			s := f.Workers()[0]
			if s.Server != c.server || s.Models[0].Fingerprint != c.fingerprint || !s.Connected {
				t.Errorf("%d: shown as %+v", i, s)
			}
			if m, ok := a.Link.Model("m"); !ok || m.Fingerprint != c.fingerprint {
				t.Errorf("%d: the link has %+v", i, m)
			}
			if told != (placement{up: 1, remodelled: c.remodelled}) {
				t.Errorf("%d: told %+v", i, told)
			}
		}
	})
}
