package director

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// clockLate is how late a tick of the clock may be. By it links are judged: without it no failover begins.
const clockLate = 2 * time.Second

// checkup asks each part that a new stream or a failover passes through, in the way in which they do.
func (d *Director) checkup() *mgmt.Checkup {
	check := &mgmt.Checkup{}
	check.Add("fleet", func() error { d.fleet.Drained(""); return nil })
	check.Add("placement", func() error { d.placement.Proven(nil); return nil })
	check.Add("sessions", func() error { d.sessions.Running(); return nil })
	check.Add("clients", func() error { d.native.Open(); return d.user.Accepting() })
	check.Add("workers", d.mgmt.Accepting)
	check.Add("clock", d.clockMoves)
	return check
}

// clockMoves returns an error where the clock has come to a stop. A process that was stopped itself gets a moment: its
// clock may be about to go on.
func (d *Director) clockMoves() error {
	if d.clock.Late() > clockLate {
		time.Sleep(10 * clock.Tick)
	}
	if late := d.clock.Late(); late > clockLate {
		return fmt.Errorf("has not moved for %v", late.Round(time.Millisecond))
	}
	return nil
}

// live says which part is stuck: only a new start helps then.
func (d *Director) live() error { return d.check.Ask() }

// ready says whether clients are served, or what will soon keep them from that. A director without workers is ready too: its
// streams wait.
func (d *Director) ready() (note string, err error) {
	if !d.serving.Load() {
		return "", errors.New("not serving clients: starting, or shutting down")
	}
	if note, err = identity.ExpiryOf(d.tls).Check(time.Now()); err != nil {
		return "", err
	}
	return note, d.live()
}

// health answers a HealthRequest on the MGMT port, in time even if a part is stuck.
func (d *Director) health() *wirepb.HealthReply {
	_, err := d.ready()
	reply := &wirepb.HealthReply{Role: string(identity.Director), Name: d.cfg.ID, Ready: err == nil, Instance: d.instance}
	if d.live() != nil {
		return reply // what is stuck cannot be counted
	}
	workers, _ := d.placement.Workers()
	var sessions, capacity int
	for _, w := range workers {
		sessions += w.Sessions
		capacity += w.Capacity
	}
	reply.Sessions, reply.Capacity = uint32(min(sessions, math.MaxUint32)), uint32(min(capacity, math.MaxUint32))
	return reply
}
