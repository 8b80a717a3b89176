package registrar

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// remindAfter is how often it is told that a director still cannot reach the worker.
const remindAfter = 10 * time.Minute

// heartbeats are those of one registration. The goroutine of beat sends them, that of listen takes the answers.
type heartbeats struct {
	contact *contact
	place   *place
	stream  *quic.Stream
	acked   atomic.Uint64

	warned time.Time // that the director cannot reach the worker; owned by listen

	// Owned by beat.
	sent uint64
	owed uint64 // this one has to be answered when late fires; 0 if late is not set
	late *time.Timer
}

// beat sends a heartbeat now and at each interval, until one is not answered in time or ctx ends.
func (h *heartbeats) beat(ctx context.Context) error {
	cfg, deps := h.contact.registrar.cfg, h.contact.registrar.deps
	ticker := time.NewTicker(cfg.Interval)
	defer ticker.Stop()
	h.late = time.NewTimer(cfg.Timeout)
	defer h.late.Stop()
	for {
		sessions, err := deps.Load(ctx)
		if err != nil {
			return err
		}
		if err := h.send(sessions); err != nil {
			return fmt.Errorf("sending a heartbeat: %w", err)
		}
		if err := h.untilNext(ctx, ticker.C); err != nil {
			return err
		}
	}
}

// untilNext waits until it is time for the next heartbeat.
func (h *heartbeats) untilNext(ctx context.Context, tick <-chan time.Time) error {
	for {
		select {
		case <-tick:
			return nil
		case <-h.late.C:
			if acked := h.acked.Load(); acked < h.owed {
				return fmt.Errorf("heartbeat not answered within %v", h.contact.registrar.cfg.Timeout)
			}
			h.owed = 0
			h.setDeadline()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// setDeadline sets late for the newest heartbeat, unless it is set or nothing is owed.
func (h *heartbeats) setDeadline() {
	if h.owed == 0 && h.acked.Load() < h.sent {
		h.owed = h.sent
		h.late.Reset(h.contact.registrar.cfg.Timeout)
	}
}

// send sends one heartbeat, with a deadline, and sees that its answer is waited for.
func (h *heartbeats) send(sessions int) error {
	h.sent++
	m := &wirepb.Heartbeat{Count: h.sent, Sessions: uint32(sessions)}
	if err := h.stream.SetWriteDeadline(time.Now().Add(h.contact.registrar.cfg.Timeout)); err != nil {
		return err
	}
	_, err := h.stream.Write(wire.Append(nil, m))
	h.setDeadline()
	return err
}

// listen records the answers, until the stream ends or the place has to be given up.
func (h *heartbeats) listen(frames *wire.Reader) error {
	for {
		ack, err := wire.ReadMessage[*wirepb.HeartbeatAck](frames)
		if err != nil {
			return fmt.Errorf("waiting for heartbeats' answers: %w", err)
		}
		h.acked.Store(ack.GetCount())
		if h.reached(wire.Text(ack.GetUnreachable())) {
			return errOther
		}
	}
}

// reached takes note of whether the director can reach the worker's USER port. It reports true where the place is better
// left to the contact at another address of the same director: an empty host in an advertised address stands for the one
// that the director sees, and that may be the wrong one of two.
func (h *heartbeats) reached(unreachable string) (leave bool) {
	c := h.contact
	changed, contested := c.registrar.places.reached(h.place, unreachable)
	switch {
	case unreachable != "" && (changed || time.Since(h.warned) > remindAfter):
		h.warned = time.Now()
		c.log.Warn("the director cannot reach this worker's USER port; see CONNECTION_SWAP_WORKER_ADVERTISE_USER_ADDR, and firewalls",
			zap.String("reason", unreachable))
	case unreachable == "" && changed:
		c.log.Info("the director reaches this worker's USER port again")
	}
	if unreachable == "" || !contested || time.Since(c.stepped) < remindAfter {
		return false
	}
	c.stepped = time.Now()
	return true
}
