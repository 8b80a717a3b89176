package fleet_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
)

// deaf is a network on which nobody answers. It remembers who was dialled last.
type deaf struct{ last atomic.Value }

func (d *deaf) Dial(_ context.Context, peer link.Peer) (link.Conn, error) {
	d.last.Store(peer.UserAddr)
	return nil, errors.New("nobody there")
}

// TestSameInstanceAtAnotherAddress is a container that comes back to its network under another address before its
// old registration is overdue.
func TestSameInstanceAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nw := &deaf{}
		f := fleet.New(link.Config{ProgressTimeout: time.Second}, fleet.Deps{Dialer: nw, Log: zap.NewNop(), Clock: &clock.StallProof{}})
		defer f.Close()
		old, err := f.Register(link.Peer{Label: "a", Instance: "1", UserAddr: "10.0.0.5:62001"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if _, err := f.Register(link.Peer{Label: "a", Instance: "1", UserAddr: "10.0.0.9:62001"}); err != nil {
			t.Fatal(err)
		}
		if old.Heartbeat(0) {
			t.Error("the old registration still counts")
		}
		old.Close()
		time.Sleep(time.Minute)
		if last := nw.last.Load(); last != "10.0.0.9:62001" {
			t.Errorf("the director dials %v", last)
		}
	})
}
