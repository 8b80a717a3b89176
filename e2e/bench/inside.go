package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// inside is a cluster within this process, on loopback: its memory can be seen.
type inside struct {
	ids      map[identity.Role]identity.Source
	user     string // the director's
	mgmt     string
	settings func(*config.Worker)
	operator *operator.Client

	ctx     context.Context // of director and workers
	stop    context.CancelCauseFunc
	running sync.WaitGroup
}

// startInside starts a director.
func startInside(ctx context.Context, direct func(*config.Director), work func(*config.Worker)) (*inside, error) {
	ids, err := identity.NewDevelopment(time.Now())
	if err != nil {
		return nil, err
	}
	cfg := config.DefaultDirector()
	cfg.ID, cfg.UserAddr, cfg.MgmtAddr = "bench", "127.0.0.1:0", "127.0.0.1:0"
	direct(&cfg)
	d, err := director.New(cfg, director.Deps{Network: quicnet.OS{}, TLS: ids[identity.Director], Log: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	c := &inside{ids: ids, user: d.UserAddr().String(), mgmt: d.MgmtAddr().String(), settings: work}
	c.ctx, c.stop = context.WithCancelCause(ctx)
	c.run(d.Run)
	c.operator, err = operator.Dial(ctx, c.mgmt, operator.Options{TLS: ids[identity.Operator]})
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// run runs a role until the cluster ends, which it does when one fails.
func (c *inside) run(role func(context.Context) error) {
	c.running.Go(func() {
		if err := role(c.ctx); err != nil {
			c.stop(err)
		}
	})
}

func (c *inside) end() {
	if c.operator != nil {
		_ = c.operator.Close() // all has been asked
	}
	c.stop(nil)
	c.running.Wait()
}

// Work starts a worker and waits until it is available.
func (c *inside) Work(ctx context.Context, name string, _ ...string) error {
	cfg := config.DefaultWorker()
	cfg.Label, cfg.Directors, cfg.UserAddr, cfg.MgmtAddr = name, []string{c.mgmt}, "127.0.0.1:0", "127.0.0.1:0"
	cfg.DrainTimeout = time.Millisecond // at the end nobody waits for the streams
	c.settings(&cfg)
	w, err := worker.New(cfg, worker.Deps{TLS: c.ids[identity.Worker]})
	if err != nil {
		return err
	}
	c.run(w.Run)
	for {
		status, err := c.operator.Status(ctx)
		if err != nil {
			return errors.Join(err, context.Cause(c.ctx))
		}
		for _, w := range status.Workers {
			if w.Worker == name && w.Connected && w.Available {
				return nil
			}
		}
		if err := sleep(c.ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("worker %s: %w", name, context.Cause(c.ctx))
		}
	}
}

func (c *inside) Dial(ctx context.Context) (*connswap.Conn, error) {
	return connswap.Dial(ctx, c.user, connswap.Options{TLS: c.ids[identity.Client], Name: "bench"})
}

// Logs returns none: what goes wrong here does so in the other classes too.
func (c *inside) Logs() string { return "" }
