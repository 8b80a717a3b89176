package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// workTimeout is how long a health check waits for the worker to send something. A checkup waits for more than twice that.
const workTimeout = 400 * time.Millisecond

// checkup asks each part that a session passes through, in the way in which it does.
func (w *Worker) checkup(ports *ports) *mgmt.Checkup {
	check := &mgmt.Checkup{}
	check.Add("sessions", func() error { w.sessions.Load(); return nil })
	check.Add("links", w.chaos.Check(workTimeout, w.linksWork))
	check.Add("new links", ports.user.Accepting)
	check.Add("states", ports.mgmt.Accepting)
	check.Add("registrar", func() error { w.registrar.Registered(); return nil })
	return check
}

// linksWork returns an error where directors hear nothing. A process that was stopped gets a moment to go on.
func (w *Worker) linksWork() error {
	if w.links.Working() == nil {
		return nil
	}
	time.Sleep(workTimeout)
	return w.links.Working()
}

// live says which part is stuck: only a new start helps then.
func (w *Worker) live() error { return w.check.Ask() }

// ready says why the worker serves nobody new; or what will soon be the reason.
func (w *Worker) ready() (note string, err error) {
	if err := w.live(); err != nil {
		return "", err
	}
	if note, err = identity.ExpiryOf(w.deps.TLS).Check(time.Now()); err != nil {
		return "", err
	}
	return note, w.placed()
}

// placed says why no director has anything for the worker.
func (w *Worker) placed() error {
	if load := w.sessions.Load(); !load.Available {
		return errors.New(load.Reason)
	}
	if w.registrar.Registered() == 0 {
		return errors.New("not registered at any director")
	}
	if reason := w.registrar.Unreachable(); reason != "" {
		return fmt.Errorf("no director reaches the USER port: %s", reason)
	}
	return nil
}

// health answers a HealthRequest on the MGMT port, in time even if a part is stuck.
func (w *Worker) health() *wirepb.HealthReply {
	_, err := w.ready()
	reply := &wirepb.HealthReply{
		Role: "worker", Name: w.cfg.Label, Ready: err == nil, Capacity: uint32(w.cfg.Capacity),
	}
	if w.live() == nil { // what is stuck cannot be counted
		reply.Sessions = uint32(w.sessions.Load().Sessions)
	}
	return reply
}
