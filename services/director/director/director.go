// Package director is the process that clients talk to: it gives their streams to workers, and keeps them
// going when workers fail.
package director

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/lived"
	"github.com/connswap/connswap/services/director/internal/pool"
	"github.com/connswap/connswap/services/director/internal/server"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/wire"
)

// Deps is what a director needs from outside.
type Deps struct {
	Network quicnet.Network
	TLS     identity.Source // of role Director
	Log     *zap.Logger
}

// Director is one director. Make it with New, then Run it once.
type Director struct {
	cfg    config.Director
	log    *zap.Logger
	clock  *lived.Clock
	pool   *pool.Pool
	server *server.Server
	swaps  *history

	serving atomic.Bool // clients

	user     *quicnet.Listener
	mgmt     *quicnet.Listener
	mgmtHTTP net.Listener
}

// New binds the ports. The error names the variable of an address that cannot be bound.
func New(cfg config.Director, deps Deps) (*Director, error) {
	nw := deps.Network
	if cfg.PacketLoss > 0 {
		nw = quicnet.Impair(nw, cfg.PacketLoss)
	}
	d := &Director{cfg: cfg, log: deps.Log, clock: &lived.Clock{}, swaps: newHistory()}
	d.pool = pool.New(pool.Config{
		DirectorID: cfg.ID, KeepAlive: cfg.LinkKeepAlive, IdleTimeout: cfg.LinkIdleTimeout,
		ProgressTimeout: cfg.ProgressTimeout, MaxSwaps: cfg.MaxConcurrentSwaps,
	}, pool.Deps{Network: nw, TLS: deps.TLS, Clock: d.clock, Log: deps.Log})
	d.server = server.New(serverConfig(cfg), session.Deps{Pool: d.pool, Clock: d.clock, Log: deps.Log, Swaps: d.swaps.add})
	if err := d.bind(nw, deps.TLS); err != nil {
		return nil, errors.Join(err, d.unbind())
	}
	return d, nil
}

func serverConfig(cfg config.Director) server.Config {
	return server.Config{
		DirectorID: cfg.ID, MaxConnections: cfg.MaxConnections, MaxSessions: cfg.MaxSessions, MaxPromptBytes: cfg.MaxPromptBytes, MaxTokens: cfg.MaxTokens,
		Session: session.Config{
			MaxBytes: cfg.MaxSessionBytes, Window: cfg.WindowTokens,
			WorkerWait: cfg.WorkerWait, ClientStall: cfg.ClientStall, AttachTimeout: cfg.AttachTimeout,
			FirstTokenTimeout: cfg.FirstTokenTimeout, TokenTimeoutMin: cfg.TokenTimeoutMin, TokenFactor: cfg.TokenTimeoutFactor,
			MaxSwapsPerMinute: cfg.MaxSwapsPerMinute, MaxWorkerDeaths: cfg.MaxWorkerDeaths,
		},
	}
}

func (d *Director) bind(nw quicnet.Network, tls identity.Source) (err error) {
	serveClients := quicnet.ServeClientsConfig(d.cfg.MaxStreams)
	d.user, err = quicnet.Listen(nw, d.cfg.UserAddr, identity.ServerTLS(tls, []string{wire.ALPNClient}, nil), serveClients)
	if err != nil {
		return config.CannotBind("DIRECTOR_USER_ADDR", d.cfg.UserAddr, err)
	}
	roles := map[string][]identity.Role{wire.ALPNMgmt: {identity.Worker, identity.Director, identity.Operator}}
	tlsConf := identity.ServerTLS(tls, []string{wire.ALPNMgmt}, roles)
	d.mgmt, err = quicnet.Listen(nw, d.cfg.MgmtAddr, tlsConf, quicnet.MgmtConfig(d.cfg.HeartbeatInterval+d.cfg.HeartbeatTimeout))
	if err != nil {
		return config.CannotBind("DIRECTOR_MGMT_ADDR", d.cfg.MgmtAddr, err)
	}
	d.mgmtHTTP, err = nw.ListenStream(d.cfg.MgmtAddr)
	if err != nil {
		return config.CannotBind("DIRECTOR_MGMT_ADDR", d.cfg.MgmtAddr, err)
	}
	return nil
}

// unbind releases what bind got before it failed.
func (d *Director) unbind() error {
	var errs []error
	if d.user != nil {
		errs = append(errs, d.user.Close())
	}
	if d.mgmt != nil {
		errs = append(errs, d.mgmt.Close())
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends. It stops in the reverse order of this list: first the clients, so that no stream
// begins that the pool could not serve; MGMT last, so that it can be seen how the rest goes.
func (d *Director) Run(ctx context.Context) error {
	d.log.Info("director serves", zap.String("director", d.cfg.ID), zap.Stringer("user", d.user.Addr()), zap.Stringer("mgmt", d.mgmt.Addr()))
	var g run.Group
	g.Add("mgmt http", func(ctx context.Context) error { return mgmt.Serve(ctx, d.mgmtHTTP, d.routes()) })
	g.Add("clock", func(ctx context.Context) error { return d.clock.Run(ctx, d.pool.Watch) })
	g.Add("workers", func(ctx context.Context) error {
		<-ctx.Done()
		d.pool.Close()
		return nil
	})
	g.Add("mgmt", func(ctx context.Context) error {
		face := mgmt.Face{Health: d.health, Stream: d.serveWorker}
		return face.Serve(ctx, d.mgmt)
	})
	g.Add("clients", func(ctx context.Context) error {
		d.serving.Store(true)
		defer context.AfterFunc(ctx, func() { d.serving.Store(false) })()
		return d.server.Serve(ctx, d.user)
	})
	return g.Run(ctx)
}

// UserAddr returns the address that clients are served on.
func (d *Director) UserAddr() net.Addr { return d.user.Addr() }

// MgmtAddr returns the address that workers are served on.
func (d *Director) MgmtAddr() net.Addr { return d.mgmt.Addr() }
