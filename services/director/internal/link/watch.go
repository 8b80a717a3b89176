package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// silence is how long nothing came from a worker, by the stall-proof clock.
type silence struct {
	packets    uint64        // as counted at lastPacket
	progress   uint64        // as counted at lastProgress
	lastPacket time.Duration // when that count was seen to have risen
	lastMoved  time.Duration
}

// Judge returns why the worker counts as lost, allowing the given multiple of the usual silence; or nil. now is by the
// stall-proof clock. A worker from which no packet came is unreachable; one that sends packets but no progress hangs.
// One goroutine at a time may call it, between Up and Down.
func (l *Link) Judge(now time.Duration, factor time.Duration) error {
	s, packets, progress := &l.silence, l.conn.Stats().PacketsReceived, l.progress.Load()
	if s.lastPacket == 0 || packets != s.packets {
		s.packets, s.lastPacket = packets, now
	}
	if s.lastMoved == 0 || progress != s.progress {
		s.progress, s.lastMoved = progress, now
	}
	switch {
	case now-s.lastPacket >= factor*l.cfg.IdleTimeout:
		return Lost(CauseIdle, fmt.Errorf("nothing received for %v", now-s.lastPacket))
	case now-s.lastMoved >= factor*l.cfg.ProgressTimeout:
		return Lost(CauseProgress, fmt.Errorf("no progress for %v", now-s.lastMoved))
	}
	return nil
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
