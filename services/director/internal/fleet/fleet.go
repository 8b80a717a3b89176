// Package fleet knows the workers: who is registered, the link to each and who supervises it, and which ones operators
// have drained. Which stream a worker gets is decided elsewhere (see Placement).
package fleet

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Placement gives streams to workers. It is told what becomes of their links, on the links' goroutines: it must not
// block. No lock of the fleet is held, so that it may ask the fleet.
type Placement interface {
	// Up says that a link can be given streams.
	Up(l *link.Link)
	// Changed says that a worker takes streams which it did not take before, or no longer does.
	Changed(l *link.Link)
	// Remodelled says that a worker has other models than it had.
	Remodelled(l *link.Link)
	// Reported passes on how many streams a worker has by its own count, those of other directors among them.
	Reported(l *link.Link, streams int)
	// Declined says that a worker refused a stream because it has no room, or is not ready.
	Declined(l *link.Link)
	// Failed says that a worker has let go of all its streams. Its link stays.
	Failed(l *link.Link)
	// Down says that a link is lost, with all its streams.
	Down(l *link.Link, cause link.Cause)
}

// Deps is what a Fleet needs from outside.
type Deps struct {
	Dialer   link.Dialer
	Clock    *clock.StallProof
	Log      *zap.Logger
	Draining func(label, instance string) // called when a worker asks to be emptied; must not block. Optional

	Events *event.Bus // optional

	// LabelsPerCertificate bounds the workers that are registered with one certificate which names nobody; 0 for no bound.
	LabelsPerCertificate int

	DefaultModel string        // for requests that name none; empty for the one that the most workers have
	ModelsFor    time.Duration // that a model is remembered which no worker has any more
}

// Fleet is safe for concurrent use. It owns one goroutine for each worker, its supervisor, which owns the worker's
// link; Close waits for them. No call to links or placement that could come back here is made with its lock held.
type Fleet struct {
	cfg       link.Config
	deps      Deps
	log       *zap.Logger
	placement Placement // set before the first worker registers

	supervisors sync.WaitGroup // one goroutine per worker
	ctx         context.Context
	stop        context.CancelCauseFunc

	// Owned by whoever calls Watch.
	ticks int
	stall time.Duration // that was logged

	mu      sync.Mutex
	workers map[string]*worker // by label
	models  models
	gone    packets
	links   []*link.Link         // up, in the order in which they came up
	drained map[string]time.Time // labels of workers that get nothing new: since when none is registered, zero while one is
}

// New returns a fleet without workers. Close ends it.
func New(cfg link.Config, deps Deps) *Fleet {
	cfg.Clock = deps.Clock
	f := &Fleet{cfg: cfg, deps: deps, log: deps.Log, workers: map[string]*worker{}, models: models{}, drained: map[string]time.Time{}}
	f.ctx, f.stop = context.WithCancelCause(context.Background())
	return f
}

// Serve names the placement. Call it once, before the first worker registers.
func (f *Fleet) Serve(p Placement) { f.placement = p }

// Close leaves all workers and waits until nothing of the fleet runs any more.
func (f *Fleet) Close() {
	f.stop(link.Lost(link.CauseShutdown, nil))
	f.supervisors.Wait()
}

// Link returns the link to a worker, or nil while it is down. The error says that no such worker is registered.
func (f *Fleet) Link(label string) (*link.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.workers[label]
	if w == nil {
		return nil, unknown(label)
	}
	return w.link, nil
}

// unknown is the error for a label under which no worker is registered.
func unknown(label string) error {
	return wire.Errorf(wire.CodeNotFound, "no worker %q is registered", label)
}

// up returns the links that are up, in the order in which they came up: a copy.
func (f *Fleet) up() []*link.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.links)
}

// ticksOfLeisure is at how many ticks one judgement of the links without streams is due.
const ticksOfLeisure = 10

// Watch judges the links once. Call it at each tick of the stall-proof clock, from one goroutine.
//
// If many of those that are watched as closely fall silent at once, the fault is more likely on our side: they get
// twice the time.
func (f *Fleet) Watch() {
	if stall := f.cfg.Clock.Stall(); stall != f.stall {
		f.stall = stall
		if stall > 0 {
			f.log.Warn("this director was stopped or starved; it blames no worker for that time", zap.Duration("for", stall))
		}
	}
	f.ticks++
	links, now := f.up(), f.cfg.Clock.Now()
	verdicts, watched := map[*link.Link]error{}, map[bool]int{} // by Busy: the others notice later
	for _, l := range links {
		l.Tend(now)
		if !l.Busy() && f.ticks%ticksOfLeisure != 0 {
			continue
		}
		watched[l.Busy()]++
		if err := l.Judge(now, 1); err != nil {
			verdicts[l] = err
		}
	}
	silent := map[bool]int{}
	for l := range verdicts {
		silent[l.Busy()]++
	}
	for l, err := range verdicts {
		if busy := l.Busy(); silent[busy] > max(1, watched[busy]*3/10) {
			err = l.Judge(now, 2)
		}
		if err != nil {
			l.Lose(err)
		}
	}
}

// owner is the fleet as the link of one worker sees it. The link's goroutines call it; it records the change under the
// lock, and tells placement without.
type owner struct {
	*Fleet
	worker *worker
}

// Up adds the link to those that are up, before placement may give it streams.
func (o owner) Up(l *link.Link) {
	o.mu.Lock()
	o.links = append(o.links, l)
	o.worker.link, o.worker.unreachable = l, ""
	l.SetModels(o.worker.Models) // it may have others since the link was begun
	o.mu.Unlock()
	o.deps.Events.Publish(event.WorkerUp{Worker: o.worker.Label})
	o.placement.Up(l)
}

// Status acts on what the worker says of itself: that it has failed, takes streams or not, or asks to be emptied.
func (o owner) Status(l *link.Link, m *wirepb.WorkerStatus) {
	if m.GetFailed() {
		o.placement.Failed(l)
		return
	}
	o.placement.Changed(l)
	// That a worker asks to be emptied is over with its process: the label is free for the next.
	if m.GetDraining() && o.deps.Draining != nil {
		o.deps.Draining(o.worker.Label, o.worker.Instance)
	}
}

func (o owner) Declined(l *link.Link) { o.placement.Declined(l) }

// Down takes the link out, and then has placement queue its streams again.
func (o owner) Down(l *link.Link, cause link.Cause) {
	o.mu.Lock()
	if i := slices.Index(o.links, l); i >= 0 {
		o.links = slices.Delete(o.links, i, i+1)
	}
	o.worker.link = nil
	o.gone.add(l)
	o.mu.Unlock()
	o.deps.Events.Publish(event.WorkerLost{Worker: o.worker.Label, Cause: string(cause)})
	o.placement.Down(l, cause)
}
