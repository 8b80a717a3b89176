package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// silence is how long, in time that this process lived, nothing came from a worker.
type silence struct {
	packets  uint64
	progress uint64
	heard    time.Duration // lived time of the last packet
	moved    time.Duration // lived time of the last progress
}

// Watch judges the links once. Call it at each tick of the pool's clock.
//
// A worker from which no packet came is unreachable; one that sends packets but no progress hangs. If many
// fall silent at once, the fault is more likely on our side: they get twice the time.
func (p *Pool) Watch() {
	p.mu.Lock()
	links := append([]*Link(nil), p.links...)
	p.mu.Unlock()
	now := p.deps.Clock.Now()
	verdicts := map[*Link]error{}
	for _, l := range links {
		if err := l.judge(now, 1); err != nil {
			verdicts[l] = err
		}
	}
	if mass := len(verdicts) > max(1, len(links)*3/10); !mass {
		for l, err := range verdicts {
			l.lose(err)
		}
		return
	}
	for l := range verdicts {
		if err := l.judge(now, 2); err != nil {
			l.lose(err)
		}
	}
}

// judge returns why the worker counts as lost, allowing the given multiple of the usual silence; or nil.
func (l *Link) judge(now time.Duration, patience time.Duration) error {
	packets := l.conn.ConnectionStats().PacketsReceived
	l.mu.Lock()
	progress := l.progress
	l.mu.Unlock()
	s, cfg := &l.silence, l.pool.cfg
	if s.heard == 0 || packets != s.packets {
		s.packets, s.heard = packets, now
	}
	if s.moved == 0 || progress != s.progress {
		s.progress, s.moved = progress, now
	}
	switch {
	case now-s.heard >= patience*cfg.IdleTimeout:
		return lost(CauseIdle, fmt.Errorf("nothing received for %v", now-s.heard))
	case now-s.moved >= patience*cfg.ProgressTimeout:
		return lost(CauseProgress, fmt.Errorf("no progress for %v", now-s.moved))
	}
	return nil
}

// holdTether opens the plain TCP connection beside the link and returns when the worker's end of it is closed,
// which the kernel does as soon as the process dies. Without a tether the link works all the same, but deaths
// are noticed later.
func (l *Link) holdTether(ctx context.Context) error {
	dialing, cancel := context.WithTimeout(ctx, 2*l.pool.cfg.ProgressTimeout)
	defer cancel()
	conn, err := l.pool.deps.Network.DialStream(dialing, l.worker.UserAddr)
	if err != nil {
		l.log.Warn("no tether; a dying worker will be noticed later", zap.Error(err))
		<-ctx.Done()
		return context.Cause(ctx)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(l.tether + "\n")); err != nil {
		return lost(CauseTether, err)
	}
	if _, err = conn.Read(make([]byte, 1)); err == nil {
		return lost(CauseProtocol, errors.New("the worker wrote to the tether"))
	}
	return lost(CauseTether, err)
}
