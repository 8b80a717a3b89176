package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

// Modes of failing.
const (
	None  = "none"
	Error = "error" // it says so
	Exit  = "exit"  // the process dies
	Hang  = "hang"  // it is alive, and produces nothing
	Drop  = "drop"  // its packets vanish
	Slow  = "slow"  // it is 20 times as slow
)

// InjectorConfig says what an Injector lets fail, and when.
type InjectorConfig struct {
	Mode     string
	Min, Max time.Duration // range of the time from start or recovery to the next failure
	Recovery time.Duration // how long a failure lasts
	Seed     uint64        // of the random times; 0 for different ones in each process
}

// Effect is what a failure does.
type Effect struct {
	Begin func(reason string)
	End   func()
}

// Injector lets the failure happen, again and again, at random times.
type Injector struct {
	cfg     InjectorConfig
	effect  Effect
	log     *zap.Logger
	context func() []zap.Field
	random  *rand.Rand
	now     chan struct{}
}

// NewInjector returns an Injector. context gives the fields with which a failure is logged.
func NewInjector(cfg InjectorConfig, effect Effect, log *zap.Logger, context func() []zap.Field) *Injector {
	seed := cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	return &Injector{
		cfg: cfg, effect: effect, log: log, context: context,
		random: rand.New(rand.NewPCG(seed, 0)),
		now:    make(chan struct{}, 1),
	}
}

// Now makes the failure happen at once, unless one is under way. It does not wait for it.
func (i *Injector) Now() {
	if i.cfg.Mode == None {
		i.log.Warn("asked to fail now, but there is no failure mode; set CONNECTION_SWAP_WORKER_FAILURE_MODE")
		return
	}
	select {
	case i.now <- struct{}{}:
	default:
	}
}

// Run lets failures happen until ctx ends. One under way is then ended.
func (i *Injector) Run(ctx context.Context) error {
	if i.cfg.Mode == None {
		<-ctx.Done()
		return nil
	}
	for {
		began := time.Now()
		if !i.wait(ctx, i.next(), i.now) {
			return nil
		}
		i.fail(ctx, time.Since(began))
	}
}

// next is the time to the next chaos.
func (i *Injector) next() time.Duration {
	return i.cfg.Min + time.Duration(i.random.Int64N(int64(i.cfg.Max-i.cfg.Min)+1))
}

func (i *Injector) fail(ctx context.Context, after time.Duration) {
	reason := fmt.Sprintf("simulated failure after %.1fs", after.Seconds())
	i.log.With(i.context()...).Warn(fmt.Sprintf("simulating failure after %.1fs", after.Seconds()),
		zap.String("mode", i.cfg.Mode), zap.Duration("recovery", i.cfg.Recovery))
	i.effect.Begin(reason)
	defer i.effect.End()
	if i.wait(ctx, i.cfg.Recovery, nil) {
		i.log.Info("recovered from simulated failure", zap.String("mode", i.cfg.Mode))
	}
	select {
	case <-i.now: // asked for during the failure
	default:
	}
}

// wait is false if ctx ended before d was over or early came.
func (i *Injector) wait(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-early:
		return true
	case <-ctx.Done():
		return false
	}
}
