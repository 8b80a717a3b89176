package fleet_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/link/linktest"
)

// firewall keeps a director from its worker until it is opened.
type firewall struct {
	worker *linktest.Fake
	open   atomic.Bool
}

func (w *firewall) Dial(ctx context.Context, peer link.Peer) (link.Conn, error) {
	if w.open.Load() {
		return w.worker.Dial(ctx, peer)
	}
	return nil, errors.New("timeout: no recent network activity")
}

// TestUnreachable registers a worker whose USER port is closed by a firewall. Everybody can see that, and is told; not
// without end.
func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		peer := link.Peer{Label: "a", Instance: "1", UserAddr: "10.0.0.5:62001", Version: 1}
		wall := &firewall{worker: linktest.NewFake(peer)}
		f := fleet.New(link.Config{ProgressTimeout: time.Second}, fleet.Deps{Dialer: wall, Log: zap.New(core), Clock: &clock.StallProof{}})
		f.Serve(&placement{})
		defer f.Close()
		r, err := f.Register(peer)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		complaints := logs.FilterMessageSnippet("cannot be reached")
		if complaints.Len() != 1 || complaints.All()[0].ContextMap()["address"] != peer.UserAddr {
			t.Errorf("after a second: %+v", logs.All())
		}
		time.Sleep(10 * time.Minute)
		if n := logs.FilterMessageSnippet("cannot be reached").Len(); n < 5 || n > 12 {
			t.Errorf("%d complaints in ten minutes", n)
		}
		for _, said := range []string{r.Unreachable(), f.Workers()[0].Unreachable} {
			if !strings.Contains(said, peer.UserAddr) || !strings.Contains(said, "no recent network activity") {
				t.Errorf("it is said to be unreachable because of %q", said)
			}
		}
		wall.open.Store(true)
		<-wall.worker.Connected()
		if r.Unreachable() != "" || f.Workers()[0].Unreachable != "" {
			t.Error("unreachable although it is connected")
		}
		logs.TakeAll()
		wall.worker.Cut(link.Lost(link.CauseTether, nil)) // its process dies; a while later its registration lapses
		time.Sleep(8 * time.Second)
		if n := logs.FilterMessageSnippet("cannot be reached").Len(); n != 0 {
			t.Errorf("%d complaints of a worker that just died", n)
		}
		time.Sleep(5 * time.Second)
		if n := logs.FilterMessageSnippet("cannot be reached").Len(); n != 1 {
			t.Errorf("%d complaints of a worker that is registered and does not come back", n)
		}
	})
}
