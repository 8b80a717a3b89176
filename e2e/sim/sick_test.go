package sim

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// TestSickWorkers has ten workers whose engine fails, or stays silent, beside two healthy ones with room: a bad driver,
// a bad roll-out. From the very first stream on none is lost, and none waits for more than one try of those that cost
// time.
func TestSickWorkers(t *testing.T) {
	const timeout = 5 * time.Second
	for name, c := range map[string]struct {
		silent bool
		first  time.Duration // to a stream's first token, at most
	}{
		"engine errors": {false, time.Second},
		"silence":       {true, timeout + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := simtest.Options{}
				opts.Path.Delay = time.Millisecond
				cl := newCluster(t, 1, opts, t.Logf)
				defer cl.close()
				ill := &sick{Engine: mustEngine(t, "counter"), silent: c.silent}
				cl.direct(func(cfg *config.Director) { cfg.FirstTokenTimeout = timeout })
				for n := range 12 {
					if cl.engine = ill; n >= 10 {
						cl.engine = nil
					}
					cl.work(func(cfg *config.Worker) {
						cfg.TokenInterval, cfg.Engine, cfg.Capacity = interval, "counter", 100
						cfg.FailureMin, cfg.FailureMax = time.Hour, time.Hour
					})
					time.Sleep(10300 * time.Microsecond)
				}
				time.Sleep(time.Second)
				conn, err := cl.dial("client")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close() //nolint:errcheck // the run is over
				var all []<-chan error
				for n := range 100 {
					all = append(all, firstToken(cl, conn, c.first, n))
					time.Sleep(200 * time.Millisecond)
				}
				for n, done := range all {
					if err := <-done; err != nil {
						t.Errorf("stream %d: %v", n, err)
					}
				}
				// In turn, without a rest for those that fail, it would be five streams of six.
				if n := ill.tries.Load(); n < 10 || n > 60 {
					t.Errorf("%d tries for 100 streams at sick workers", n)
				}
			})
		})
	}
}

// firstToken reads a stream of ten tokens, and says what was wrong with it.
func firstToken(c *cluster, conn *connswap.Conn, within time.Duration, n int) <-chan error {
	done := make(chan error, 1)
	c.wg.Go(func() {
		began, tokens := time.Now(), 0
		stream, err := conn.Generate(c.ctx, connswap.Request{Prompt: fmt.Sprint(n), MaxTokens: 10})
		if err != nil {
			done <- err
			return
		}
		for event, err := range stream.Events() {
			if err != nil {
				done <- err
				return
			}
			if _, ok := event.(connswap.Token); !ok {
				continue
			}
			if tokens++; tokens == 1 && time.Since(began) > within {
				done <- fmt.Errorf("first token after %v", time.Since(began))
				return
			}
		}
		if tokens != 10 {
			err = fmt.Errorf("%d tokens", tokens)
		}
		done <- err
	})
	return done
}

// sick is an engine that fails to open a stream, or makes no token of it.
type sick struct {
	engine.Engine

	silent bool
	tries  atomic.Int64
}

func (e *sick) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	e.tries.Add(1)
	if !e.silent {
		return nil, errors.New("CUDA driver version is insufficient")
	}
	g, err := e.Engine.Open(ctx, req, prefix, progress)
	return silence{g}, err
}

type silence struct{ engine.Generation }

func (silence) Next(ctx context.Context) (engine.Chunk, error) {
	<-ctx.Done()
	return engine.Chunk{}, ctx.Err()
}
