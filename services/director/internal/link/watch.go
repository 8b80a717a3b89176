package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// watch is what Tend and Judge have seen. Times are by the stall-proof clock.
type watch struct {
	busy    bool          // as Link.busy
	streams time.Duration // when there were some last
	probed  time.Duration // when the worker was last asked for a sign of life

	packets    count // that came from the worker
	progress   count // reports of it
	toWorker   count // bytes that it has received on the control stream
	fromWorker count // bytes that came on token streams
}

// count is a number that should rise, and since when it was not seen to.
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

// leisure is how many times longer a link without streams may take over everything: reports of progress, pings, and
// being noticed as lost. Such a link costs next to nothing, and a stream that is given to a worker which died meanwhile
// loses no time, since from then on the link is judged as a busy one.
func (c Config) leisure() time.Duration {
	return max(1, min(mostLeisure, leisureInterval/max(1, c.KeepAlive)))
}

const (
	mostLeisure     = 50
	leisureInterval = 5 * time.Second // between reports, at most: well within the time after which QUIC gives up
	lingering       = 5 * time.Second // from the last stream to the slow rhythm
)

// Ping is how long a worker may be silent before QUIC pings it by itself: a busy link asks for signs of life before,
// and one at leisure gets reports more often.
func (c Config) Ping() time.Duration { return 2 * c.leisure() * c.KeepAlive }

// Tend keeps the link's rhythm: slow some time after its last stream, and with a question to a busy worker of which
// nothing came for an interval, so that a socket on which nobody listens any more can say so. now is by the stall-proof
// clock. Who calls Judge calls it before.
func (l *Link) Tend(now time.Duration) {
	w := &l.watch
	if l.sinks.len() > 0 || !w.busy {
		w.streams = now
	}
	if w.busy && now-w.streams >= lingering {
		l.busy.Store(false)
		if l.sinks.len() > 0 { // given in this moment, by somebody who saw it busy
			l.busy.Store(true)
		}
	}
	busy := l.busy.Load()
	changed := busy != w.busy
	w.busy = busy
	switch {
	case changed: // It is judged anew from now on. An answer is due at once: it need not wait for the interval to pass.
		w.packets.since, w.progress.since, w.probed = now-l.cfg.KeepAlive, now, now
		if !busy { // should a stream come in this moment, the question below sets it right
			l.askFor(l.cfg.leisure() * l.cfg.KeepAlive)
		}
	case w.busy && now-max(w.packets.since, w.probed) >= l.cfg.KeepAlive:
		w.probed = now
		l.askFor(l.cfg.KeepAlive)
	}
}

// askFor tells the worker how often to report progress.
func (l *Link) askFor(interval time.Duration) {
	l.control.Send(&wirepb.Rhythm{ProgressIntervalMs: milliseconds(interval)})
}

func milliseconds(d time.Duration) uint32 { return uint32(max(1, d.Milliseconds())) }

// Busy reports whether the link is judged as one with streams, as Tend last saw it.
func (l *Link) Busy() bool { return l.watch.busy }

// Judge returns why the worker counts as lost, allowing the given multiple of the usual silence; or nil. now is by the
// stall-proof clock. A worker from which no packet came is unreachable; one that sends packets but no progress hangs;
// one that makes progress while data waits to arrive, in one direction or the other, is on a path that carries small
// packets only, or does not read. One goroutine at a time may call it, between Up and Down.
func (l *Link) Judge(now time.Duration, factor time.Duration) error {
	w, stats, progress := &l.watch, l.conn.Stats(), l.progress.Load()
	sent, arrived := l.greeting+l.control.Total(), l.arrived.Load()
	silence := w.packets.still(now, stats.PacketsReceived, true)
	hang := w.progress.still(now, progress.GetCount(), true)
	unread := w.toWorker.still(now, progress.GetReceived(), progress != nil && progress.GetReceived() < sent)
	missing := w.fromWorker.still(now, arrived, arrived < progress.GetSent())
	path := stats.SmoothedRTT + 4*stats.MeanDeviation
	if !w.busy {
		factor *= l.cfg.leisure()
	}
	switch {
	case silence >= factor*max(l.cfg.IdleTimeout, l.cfg.explained(path)):
		return Lost(CauseIdle, fmt.Errorf("nothing received for %v", silence))
	case hang >= factor*max(l.cfg.ProgressTimeout, l.cfg.explained(path)):
		return Lost(CauseProgress, fmt.Errorf("no progress for %v", hang))
	case unread >= factor*deliveryFactor*max(l.cfg.ProgressTimeout, l.cfg.explained(path)):
		return Lost(CauseDelivery, fmt.Errorf("%d bytes have not reached the worker for %v", sent-progress.GetReceived(), unread))
	case missing >= factor*deliveryFactor*max(l.cfg.ProgressTimeout, l.cfg.explained(path)):
		return Lost(CauseDelivery, fmt.Errorf("%d bytes of tokens have not come for %v", progress.GetSent()-arrived, missing))
	}
	return nil
}

// deliveryFactor is how many times longer than progress the delivery of data may take: retransmissions back off.
const deliveryFactor = 4

// explained is how long a silence this link's path explains: the worker sends something at each interval, one such
// packet is lost, and the next is late by as much as the round trip varies, or by a whole one where the path has
// changed.
func (c Config) explained(path time.Duration) time.Duration { return 2*c.KeepAlive + path }

// Lateness is how late what a worker sent may be on this link's path: lost and sent again, several times over. A stream
// that is silent for no longer is not stuck.
func (l *Link) Lateness() time.Duration {
	stats := l.conn.Stats()
	return retransmissions * (stats.SmoothedRTT + 4*stats.MeanDeviation)
}

// retransmissions is how many round trips the same data may take. Each loss costs a little more than one.
const retransmissions = 6

// watchTether opens the plain TCP connection beside the link and returns when the worker's end of it is closed,
// which the kernel does as soon as the process dies. Without a tether the link works all the same, but deaths
// are noticed later.
func (l *Link) watchTether(ctx context.Context) error {
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
