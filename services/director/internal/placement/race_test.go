package placement_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
)

// hasty is a session that asks and gives up while workers come and go.
type hasty struct {
	placement.Request

	t     *testing.T
	mu    sync.Mutex
	last  *link.Link // that it was granted
	grant int
	lost  int
}

func (h *hasty) Waiting(*placement.Request, string) {}

func (h *hasty) Granted(_ *placement.Request, l *link.Link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = l
	h.grant++
}

func (h *hasty) Lost(_ *placement.Request, l *link.Link, _ link.Cause) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l != h.last {
		h.t.Errorf("session %d was told of the loss of a worker before it was told of its grant, or after the next one", h.ID)
	}
	h.lost++
	return true
}

// TestToldInOrder has sessions ask, settle, report and give up on goroutines of their own, while workers are lost and
// come back on others: what they are told is in order all the same, and in the end nothing is left.
func TestToldInOrder(t *testing.T) {
	w := newWorld(t, placement.Config{MaxHandovers: 8, MaxPerTarget: 4})
	defer w.close()
	var all []*hasty
	ctx, stop := context.WithCancel(t.Context())
	var running, workers sync.WaitGroup
	for id := range uint64(20) {
		h := &hasty{t: t}
		h.ID, h.Session, h.Kind = id+1, h, migration.Kind(id%2)
		all = append(all, h)
		running.Go(func() {
			r := rand.New(rand.NewPCG(id, 1))
			for ctx.Err() == nil {
				switch r.IntN(5) {
				case 0, 1:
					w.Queue(&h.Request)
				case 2:
					w.Release(&h.Request)
				case 3:
					w.HandoverEnded(&h.Request)
				case 4:
					h.mu.Lock()
					l := h.last
					h.mu.Unlock()
					if l != nil && w.HasPlace(&h.Request, l) {
						w.Report(&h.Request, l, r.IntN(3) > 0)
					}
				}
			}
			w.Release(&h.Request)
		})
	}
	for n := range 3 {
		workers.Go(func() {
			for range 20 {
				one, err := w.fleet.Connect(link.Peer{Label: fmt.Sprint("w", n), Capacity: 5, Version: 2, Models: []routing.Model{{Name: "model"}}})
				if err != nil {
					t.Error(err)
					return
				}
				for w.load(one.Link.Worker()).Sessions == 0 {
					runtime.Gosched()
				}
				one.Lose(link.CauseTether)
			}
		})
	}
	workers.Wait()
	stop()
	running.Wait()
	w.worker("last", 100)
	if load := w.load("last"); load.Sessions != 0 || load.Incoming != 0 {
		t.Errorf("released sessions hold places: %+v", load)
	}
	w.empty()
	grants, losses := 0, 0
	for _, h := range all {
		grants, losses = grants+h.grant, losses+h.lost
	}
	if grants < 100 || losses < 10 {
		t.Errorf("only %d grants and %d losses: nothing was tried", grants, losses)
	}
	t.Logf("%d grants, %d losses", grants, losses)
	one := &hasty{t: t}
	one.Session, one.Kind = one, migration.Failover
	for range 20 { // no handover is counted that is over
		w.Queue(&one.Request)
		w.Release(&one.Request)
	}
	if one.grant != 20 {
		t.Errorf("%d grants of 20", one.grant)
	}
}
