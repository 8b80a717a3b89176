package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"
)

// watch is what Judge has seen. Times are by the stall-proof clock: when the count beside it was last seen to rise.
type watch struct {
	packets    count // that came from the worker
	progress   count // reports of it
	toWorker   count // bytes that it has received on the control stream
	fromWorker count // bytes that came on token streams
}

// count is a number that should rise, and since when it has not.
type count struct {
	n     uint64
	since time.Duration
}

// still returns how long the count has not risen, though it should have: due says whether anything is owed.
func (c *count) still(now time.Duration, n uint64, due bool) time.Duration {
	if c.since == 0 || n != c.n || !due {
		c.n, c.since = n, now
	}
	return now - c.since
}

// Judge returns why the worker counts as lost, allowing the given multiple of the usual silence; or nil. now is by the
// stall-proof clock. A worker from which no packet came is unreachable; one that sends packets but no progress hangs; one
// that makes progress while data waits to arrive, in one direction or the other, is on a path that carries small packets
// only, or does not read. One goroutine at a time may call it, between Up and Down.
func (l *Link) Judge(now time.Duration, factor time.Duration) error {
	w, stats, progress := &l.watch, l.conn.Stats(), l.progress.Load()
	sent, arrived := l.greeting+l.control.Total(), l.arrived.Load()
	silence := w.packets.still(now, stats.PacketsReceived, true)
	hang := w.progress.still(now, progress.GetCount(), true)
	unread := w.toWorker.still(now, progress.GetReceived(), progress != nil && progress.GetReceived() < sent)
	missing := w.fromWorker.still(now, arrived, arrived < progress.GetSent())
	path := l.explained(stats)
	delivery := max(deliveryFactor*l.cfg.ProgressTimeout, deliveryFactor*path)
	switch {
	case silence >= factor*max(l.cfg.IdleTimeout, path):
		return Lost(CauseIdle, fmt.Errorf("nothing received for %v", silence))
	case hang >= factor*max(l.cfg.ProgressTimeout, path):
		return Lost(CauseProgress, fmt.Errorf("no progress for %v", hang))
	case unread >= factor*delivery:
		return Lost(CauseDelivery, fmt.Errorf("%d bytes have not reached the worker for %v", sent-progress.GetReceived(), unread))
	case missing >= factor*delivery:
		return Lost(CauseDelivery, fmt.Errorf("%d bytes of tokens have not come for %v", progress.GetSent()-arrived, missing))
	}
	return nil
}

// deliveryFactor is how many times longer than progress the delivery of data may take: retransmissions back off.
const deliveryFactor = 4

// explained is how long a silence this link's path explains: the worker sends something at each interval, one such packet
// is lost, and the next is late by as much as the round trip varies, or by a whole one where the path has changed.
func (l *Link) explained(s quic.ConnectionStats) time.Duration {
	return 2*l.cfg.KeepAlive + s.SmoothedRTT + 4*s.MeanDeviation
}

// holdTether opens the plain TCP connection beside the link and returns when the worker's end of it is closed,
// which the kernel does as soon as the process dies. Without a tether the link works all the same, but deaths
// are noticed later.
func (l *Link) holdTether(ctx context.Context) error {
	dialing, cancel := context.WithTimeout(ctx, 2*l.cfg.ProgressTimeout)
	defer cancel()
	conn, err := l.conn.DialTether(dialing)
	if err != nil {
		l.log.Warn("no tether; a dying worker will be noticed later", zap.Error(err))
		<-ctx.Done()
		return context.Cause(ctx)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(l.tether + "\n")); err != nil {
		return Lost(CauseTether, err)
	}
	if _, err = conn.Read(make([]byte, 1)); err == nil {
		return Lost(CauseProtocol, errors.New("the worker wrote to the tether"))
	}
	return Lost(CauseTether, err)
}
