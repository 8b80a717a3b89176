package registrar

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// errLeft is why a contact ends from this side.
var errLeft = errors.New("leaving")

// maxComplaints bounds how many different errors are told before they start over.
const maxComplaints = 16

// contact is the registration at one address, renewed whenever it is lost. One goroutine owns it.
type contact struct {
	registrar *Registrar
	addr      string
	log       *zap.Logger
	told      map[string]bool // reasons since the last registration
	backoff   retry.Backoff
}

func (c *contact) run(ctx context.Context) {
	for {
		err := c.hold(ctx)
		if ctx.Err() != nil {
			return
		}
		c.complain(err)
		if !retry.Sleep(ctx, c.backoff.Next()) {
			return
		}
	}
}

// complain logs an error the first time that it stands between the worker and the director.
func (c *contact) complain(err error) {
	reason := reasonOf(err)
	if c.told[reason] {
		return
	}
	if c.told == nil || len(c.told) >= maxComplaints {
		c.told = make(map[string]bool)
	}
	c.told[reason] = true
	c.log.Warn("not registered at director", zap.Error(err))
}

// reasonOf tells errors apart. Those of the operating system also name a port of this side, another each time.
func reasonOf(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// hold registers and sends heartbeats until that fails or ctx ends.
func (c *contact) hold(ctx context.Context) error {
	cfg, deps := c.registrar.cfg, c.registrar.deps
	dialling, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, errors.New("no answer"))
	defer cancel()
	conn, err := quicnet.Dial(dialling, deps.Network, c.addr, deps.TLS, quicnet.MgmtConfig(cfg.Interval+cfg.Timeout))
	if err != nil {
		return fmt.Errorf("dialling: %w", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	unblocked := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(unblocked)
		_ = conn.CloseWithError(wire.QUICShutdown, string(wire.CodeShutdown)) // always nil
	})
	defer func() {
		end(errLeft)
		<-unblocked
		_ = conn.Close(wire.QUICShutdown, "") // the socket; all else is closed
	}()
	stream, err := conn.OpenStreamSync(dialling)
	if err != nil {
		return fmt.Errorf("opening a stream: %w", err)
	}
	frames := wire.NewReader(stream, wire.MaxControl)
	welcome, err := c.register(stream, frames)
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	c.log.Info("registered", zap.String("director", wire.Text(welcome.GetDirectorId())))
	c.told = nil
	c.backoff.Reset()
	c.registrar.registered.Add(1)
	defer c.registrar.registered.Add(-1)

	h := &heart{contact: c, stream: stream}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { end(h.listen(frames)) })
	end(h.beat(ctx))
	_ = conn.CloseWithError(wire.QUICShutdown, string(wire.CodeShutdown)) // always nil
	return context.Cause(ctx)
}

func (c *contact) register(stream *quic.Stream, frames *wire.Reader) (*wirepb.Registered, error) {
	if err := stream.SetDeadline(time.Now().Add(c.registrar.cfg.Timeout)); err != nil {
		return nil, err
	}
	if _, err := stream.Write(wire.Append(nil, c.registrar.cfg.Register)); err != nil {
		return nil, err
	}
	welcome, err := wire.ReadMessage[*wirepb.Registered](frames)
	if err != nil {
		return nil, err
	}
	return welcome, stream.SetDeadline(time.Time{})
}

// heart sends the heartbeats of one registration.
type heart struct {
	contact *contact
	stream  *quic.Stream
	acked   atomic.Uint64

	// Owned by beat.
	sent uint64
	owed uint64 // this one has to be answered when late fires; 0 if late is not set
	late *time.Timer
}

// beat sends a heartbeat now and at each interval, until one is not answered in time or ctx ends.
func (h *heart) beat(ctx context.Context) error {
	cfg, deps := h.contact.registrar.cfg, h.contact.registrar.deps
	ticker := time.NewTicker(cfg.Interval)
	defer ticker.Stop()
	h.late = time.NewTimer(cfg.Timeout)
	defer h.late.Stop()
	for {
		if err := deps.Gate.Wait(ctx); err != nil {
			return err
		}
		if err := h.send(deps.Load()); err != nil {
			return fmt.Errorf("sending a heartbeat: %w", err)
		}
		if err := h.rest(ctx, ticker.C); err != nil {
			return err
		}
	}
}

// rest waits until it is time for the next heartbeat.
func (h *heart) rest(ctx context.Context, tick <-chan time.Time) error {
	for {
		select {
		case <-tick:
			return nil
		case <-h.late.C:
			if acked := h.acked.Load(); acked < h.owed {
				return fmt.Errorf("heartbeat not answered within %v", h.contact.registrar.cfg.Timeout)
			}
			h.owed = 0
			h.watch()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watch sets late for the newest heartbeat, unless it is set or nothing is owed.
func (h *heart) watch() {
	if h.owed == 0 && h.acked.Load() < h.sent {
		h.owed = h.sent
		h.late.Reset(h.contact.registrar.cfg.Timeout)
	}
}

func (h *heart) send(sessions int) error {
	h.sent++
	m := &wirepb.Heartbeat{Count: h.sent, Sessions: uint32(sessions)}
	if err := h.stream.SetWriteDeadline(time.Now().Add(h.contact.registrar.cfg.Timeout)); err != nil {
		return err
	}
	_, err := h.stream.Write(wire.Append(nil, m))
	h.watch()
	return err
}

// listen takes the answers.
func (h *heart) listen(frames *wire.Reader) error {
	for {
		ack, err := wire.ReadMessage[*wirepb.HeartbeatAck](frames)
		if err != nil {
			return fmt.Errorf("waiting for heartbeats' answers: %w", err)
		}
		h.acked.Store(ack.GetCount())
	}
}
