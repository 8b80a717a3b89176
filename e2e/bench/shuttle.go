package main

import (
	"context"
	"fmt"
	"time"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/migration"
)

// shuttle moves all streams of one case back and forth, and collects what that took.
type shuttle struct {
	*outside
	*load
	client  *operator.Client
	history history
	result  *planned

	gaps, pauses, calm, totals, all []time.Duration
	times                           map[string][]time.Duration
}

func (o options) shuttle(ctx context.Context, p *planned) error {
	interval := intervalFor(p.Streams)
	c, err := start(o.bin, append(settings(interval, p.Streams), engine(p.State, p.Streams)...)...)
	if err != nil {
		return err
	}
	defer c.Stop()
	l, err := begin(ctx, c, p.Streams)
	if err != nil {
		return err
	}
	defer l.end()
	client, err := c.operate(ctx)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // all has been asked
	s := &shuttle{
		outside: c, load: l, client: client, history: history{cluster: c}, result: p,
		times: map[string][]time.Duration{},
	}
	if err := s.run(ctx, interval); err != nil {
		return fmt.Errorf("%w\n%s", err, c.Logs())
	}
	return s.sum()
}

func (s *shuttle) run(ctx context.Context, interval time.Duration) error {
	from, to := "a", "b"
	for i := range s.result.Moves {
		if err := s.awaitRhythm(ctx, s.outside, to, interval); err != nil {
			return err
		}
		if err := s.once(ctx, from, interval); err != nil {
			return fmt.Errorf("move %d: %w", i+1, err)
		}
		from, to = to, from
	}
	return nil
}

// maxIdle is enough to see what happens when nothing moves.
const maxIdle = 30 * time.Second

// once moves all streams, and then leaves them alone for as long as that took.
func (s *shuttle) once(ctx context.Context, from string, interval time.Duration) error {
	s.takePauses(interval)
	began := time.Now()
	if err := s.move(ctx, s.client, from); err != nil {
		return err
	}
	s.all = append(s.all, time.Since(began))
	if err := s.flow(ctx); err != nil { // so that all have had a token after their swap
		return err
	}
	for _, r := range s.streams {
		for _, swap := range r.takeSwaps() {
			if swap.kind == migration.Planned.String() {
				s.gaps = append(s.gaps, swap.gap-interval)
			}
		}
	}
	s.pauses = append(s.pauses, s.takePauses(interval)...)
	if err := sleep(ctx, min(time.Since(began), maxIdle)); err != nil {
		return err
	}
	s.calm = append(s.calm, s.takePauses(interval)...)
	return s.record()
}

// record takes the director's times of the last move.
func (s *shuttle) record() error {
	news, err := s.history.news()
	for _, r := range news {
		switch {
		case r.Kind != migration.Planned.String():
			s.result.False++
		case r.State != migration.Completed.String():
			s.result.Lost++
			s.result.Why[r.Reason]++
		default:
			s.totals = append(s.totals, duration(r.TotalMS))
			for state := migration.Idle; state < migration.Completed; state++ {
				s.times[state.String()] = append(s.times[state.String()], duration(r.StateMS[state.String()]))
			}
		}
	}
	return err
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// sum fills in the result.
func (s *shuttle) sum() (err error) {
	p := s.result
	p.Samples = len(s.gaps)
	p.Gap, p.Pause, p.Calm = summarize(s.gaps), summarize(s.pauses), summarize(s.calm)
	p.Total, p.All = summarize(s.totals), summarize(s.all)
	for state, times := range s.times {
		p.Times[state] = summarize(times)
	}
	if p.Director, err = peakMemory(s.Director); err != nil {
		return err
	}
	for _, w := range s.Workers {
		peak, err := peakMemory(w)
		if err != nil {
			return err
		}
		p.Worker = max(p.Worker, peak)
	}
	return nil
}
