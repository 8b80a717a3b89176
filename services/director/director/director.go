// Package director is the process that clients talk to: it gives their streams to workers, and keeps them
// going when workers fail.
package director

import (
	"context"
	crypto "crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/connswap/connswap/services/director/internal/checkpoint"
	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/door/native"
	"github.com/connswap/connswap/services/director/internal/door/openai"
	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/maintenance"
	"github.com/connswap/connswap/services/director/internal/metrics"
	"github.com/connswap/connswap/services/director/internal/operations"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// Deps is what a director needs from outside.
type Deps struct {
	Network quicnet.Network
	TLS     identity.Source // of role Director
	Log     *zap.Logger
	Version uint32 // highest protocol version to speak with workers; optional: the build's own

	LogCounts func() telemetry.Counts // of Log's lines; optional
	Hurry     context.Context         // ends when Run is to wait for no stream any more; optional
	Memory    memory.Limit            // of the process; optional
}

// Director is one director: the wiring of its parts, and what it answers on the MGMT port. It decides nothing about
// streams or workers. Make it with New, then Run it once; Run owns all goroutines.
type Director struct {
	cfg         config.Director
	versions    wire.Versions
	log         *zap.Logger
	tls         identity.Source
	logCounts   func() telemetry.Counts
	clock       *clock.StallProof
	fleet       *fleet.Fleet
	placement   *placement.Placement
	checkpoints *checkpoints
	sessions    *session.Manager
	memory      memory.Limit
	shares      *shares.Ledger
	native      *native.Server
	openai      *openai.Server
	maintenance *maintenance.Service
	operations  *operations.Table // operators', over HTTP
	swaps       *history          // that are over
	events      *event.Bus
	metrics     *metrics.Metrics
	settings    *settings.Settings
	keys        *keys.Keys     // of clients; nil where these need none
	keysFile    *yamlfile.File // that they are from; nil for none of their own
	followers   atomic.Int64   // of events

	check    *mgmt.Checkup
	serving  atomic.Bool // clients, between the start and the end of Run: readyz says so
	instance string      // of this process

	user     *quicnet.Listener
	userHTTP net.Listener // nil where HTTP is off
	mgmt     *quicnet.Listener
	mgmtHTTP net.Listener
	http     mgmt.HTTP // what is served on mgmtHTTP
}

// New binds the ports. The error names the variable of an address that cannot be bound.
func New(cfg config.Director, deps Deps) (d *Director, err error) {
	nw := deps.Network
	if cfg.PacketLoss > 0 {
		nw = quicnet.Impair(nw, cfg.PacketLoss)
	}
	if deps.LogCounts == nil {
		deps.LogCounts = func() telemetry.Counts { return telemetry.Counts{} }
	}
	m := metrics.New(func() metrics.Load { return d.load() })
	known, err := readFiles(cfg, deps.Log, m)
	if err != nil {
		return nil, err
	}
	cfg.MaxCheckpointBytes = deps.Memory.Part(4, cfg.MaxCheckpointBytes) // beside what clients make it hold
	d = &Director{
		cfg: cfg, versions: wire.PeerVersions(deps.Version), log: deps.Log, tls: deps.TLS, logCounts: deps.LogCounts,
		instance: identity.NewID(),
		clock:    &clock.StallProof{}, swaps: newHistory(), operations: operations.NewTable(deps.Log),
		memory: deps.Memory, shares: shares.New(limits(known.settings.Now().Director, deps.Memory)),
		metrics: m, settings: known.settings, keys: known.keys, keysFile: known.keysFile,
	}
	d.events = event.NewBus(d.swaps.observe, d.metrics.Observe, logEvents(deps.Log))
	links := link.Config{
		DirectorID: cfg.ID, Instance: d.instance, KeepAlive: cfg.LinkKeepAlive, IdleTimeout: cfg.LinkIdleTimeout,
		ProgressTimeout: cfg.ProgressTimeout, Flow: d.metrics,
	}
	d.fleet = fleet.New(links, fleet.Deps{
		Dialer: link.QUIC{Network: nw, TLS: deps.TLS, KeepAlive: links.Ping()}, Clock: d.clock, Log: deps.Log,
		Draining: func(label, instance string) {
			d.events.Publish(event.WorkerDraining{Worker: label, Reason: "it asks for that"})
			d.maintenance.Leaving(label, instance)
		},
		Events:               d.events,
		LabelsPerCertificate: cfg.MaxLabels, DefaultModel: cfg.DefaultModel, ModelsFor: cfg.WorkerWait,
	})
	if d.placement, err = newPlacement(cfg, d.fleet, deps.Log); err != nil {
		return nil, err
	}
	d.checkpoints = newCheckpoints(cfg, d.instance, nw, deps.TLS, d.events, deps.Log)
	d.sessions = session.NewManager(sessionConfig(d.settings.Now().Director), session.Deps{
		Placement: d.placement, Clock: d.clock, Log: deps.Log, Events: d.events, Stalls: &d.metrics.Stalls,
		Checkpoints: d.checkpoints, Limiter: d.checkpoints.limiter,
		Tokens: token.NewIssuer(token.Config{Director: d.instance, TTL: cfg.TokenTTL, Rate: cfg.TokenRate}),
	}, cfg.SessionRetention)
	access, err := d.access()
	d.openDoors(deps)
	d.maintenance = maintenance.New(maintenance.Config{
		AtOnce: cfg.MaxConcurrentSwaps, Transfers: cfg.MaxTransfers, SwapsPerSecond: cfg.RebalancePace,
		Confirm: cfg.Confirm == "operator",
	}, d.sessions, d.placement, d.fleet, deps.Log)
	if err == nil {
		err = d.bind(nw, deps.TLS)
	}
	if err != nil {
		d.checkpoints.Close()
		d.placement.Close()
		return nil, errors.Join(err, d.unbind())
	}
	d.check = d.checkup()
	d.http = mgmt.HTTP{Handler: d.routes(access), TLS: identity.HTTPServerTLS(deps.TLS), Log: deps.Log}
	return d, nil
}

// openDoors makes what clients come in by.
func (d *Director) openDoors(deps Deps) {
	cfg := d.cfg
	numbers := &atomic.Uint64{}
	d.openai = openai.New(openai.Config{
		MaxStreams: cfg.MaxStreams, Drain: cfg.DrainTimeout,
		Retention: cfg.SessionRetention, Resume: cfg.ResumeWait > 0, Heartbeat: cfg.HTTPHeartbeat, Origins: cfg.Origins, Hurry: deps.Hurry,
		Settings: d.settings, Keys: d.keys,
		Model: d.fleet.Model, Models: d.fleet.Models, Answers: d.fleet.Answers, Promise: d.fleet.Promise, Answered: d.metrics.Answered, Events: d.events,
	}, d.shares, d.sessions, numbers, d.clock, deps.Log)
	d.native = native.New(native.Config{
		DirectorID: cfg.ID, ClientIdle: cfg.ClientIdleTimeout, Drain: cfg.DrainTimeout, ResumeWait: cfg.ResumeWait, Hurry: deps.Hurry,
		Names: cfg.ClientNames, Settings: d.settings, Keys: d.keys, Model: d.fleet.Model, Events: d.events,
		Numbers: numbers, Others: map[string]func(*quic.Conn){http3.NextProtoH3: d.openai.ServeQUIC},
	}, d.shares, d.sessions, d.clock, deps.Log)
}

// access is who may do what over HTTP.
func (d *Director) access() (mgmt.Access, error) {
	access := mgmt.Access{PlainStatus: d.cfg.PlainStatus, Log: d.log}
	if d.cfg.Tokens == "" {
		return access, nil
	}
	tokens, err := mgmt.ReadTokens(d.cfg.Tokens, d.log)
	if err != nil {
		return access, config.CannotUse("DIRECTOR_OPERATOR_TOKENS_FILE", d.cfg.Tokens, err)
	}
	access.Tokens = tokens
	return access, nil
}

// warnOpen says loudly that a director has neither keys nor asks for certificates, and serves others than its own machine's clients.
func (d *Director) warnOpen() {
	if d.keys == nil && d.cfg.ClientAuth != "certificate" && !config.IsLoopback(d.cfg.UserAddr) {
		d.log.Warn("whoever reaches this director may use it: clients need neither a key (CONNECTION_SWAP_DIRECTOR_KEYS_FILE, or keys in CONNECTION_SWAP_DIRECTOR_CONFIG_FILE) nor a certificate (CONNECTION_SWAP_DIRECTOR_CLIENT_AUTH)",
			zap.String("user", d.cfg.UserAddr))
	}
}

// limits is how much of everything clients may have together.
func limits(cfg config.Director, limit memory.Limit) shares.Limits {
	bytes := limit.Budget(cfg.MaxBytes)
	return shares.Limits{
		shares.Connections: int64(cfg.MaxConnections), shares.Streams: int64(cfg.MaxSessions), shares.Bytes: bytes,
		shares.Requests: shares.HalfOpen(bytes), shares.Sockets: int64(min(mgmt.Descriptors()/2, math.MaxInt32)),
	}
}

// newPlacement returns the placement with the routing policy of the configuration.
func newPlacement(cfg config.Director, f *fleet.Fleet, log *zap.Logger) (*placement.Placement, error) {
	var seed [32]byte
	_, _ = crypto.Read(seed[:]) // never fails (crypto/rand)
	random := rand.NewChaCha8(seed)
	router, err := routing.New(cfg.Routing, random)
	if err != nil {
		return nil, fmt.Errorf("CONNECTION_SWAP_DIRECTOR_ROUTING: %w", err)
	}
	limits := placement.Config{MaxHandovers: cfg.MaxConcurrentSwaps, MaxPerTarget: cfg.MaxSwapsPerTarget}
	return placement.New(limits, router, random, f, log), nil
}

// sessionConfig is the part of the configuration that bounds sessions.
func sessionConfig(cfg config.Director) session.Config {
	return session.Config{
		MaxBytes: cfg.MaxSessionBytes, Window: cfg.WindowTokens, ClientStall: cfg.ClientStall, ResumeWait: cfg.ResumeWait,
		MaxSwapsPerMinute: cfg.MaxSwapsPerMinute, MaxWorkerDeaths: cfg.MaxWorkerDeaths,
		Tokens: stream.Timeouts{
			FirstToken: cfg.FirstTokenTimeout, TokenMin: cfg.TokenTimeoutMin, Factor: cfg.TokenTimeoutFactor,
		},
		Handover: handover.Config{
			WorkerWait: cfg.WorkerWait, ConfirmTimeout: cfg.ConfirmTimeout, AttachTimeout: cfg.AttachTimeout,
			TransferTimeout: cfg.TransferTimeout, FirstTokenTimeout: cfg.FirstTokenTimeout,
		},
		Checkpoint: checkpoint.Config{
			Interval: cfg.CheckpointInterval, TransferTimeout: cfg.TransferTimeout, AtPeer: cfg.CheckpointPlace == "peer",
		},
	}
}

// bind listens on all ports, before anything runs: a port that is taken ends the start.
func (d *Director) bind(nw quicnet.Network, tls identity.Source) (err error) {
	serveClients := quicnet.ServeClientsConfig(d.cfg.MaxStreams)
	protocols := []string{wire.ALPNClient}
	if d.cfg.HTTP != "off" {
		protocols = append(protocols, http3.NextProtoH3)
	}
	err = d.bindUser(nw, identity.ServerTLS(tls, protocols, d.clientRoles()), serveClients)
	for tries := 1; err != nil && tries < mostTries && strings.HasSuffix(d.cfg.UserAddr, ":0"); tries++ {
		err = d.bindUser(nw, identity.ServerTLS(tls, protocols, d.clientRoles()), serveClients)
	}
	if err != nil {
		return config.CannotBind("DIRECTOR_USER_ADDR", d.cfg.UserAddr, err)
	}
	d.mgmt, err = mgmt.Listen(nw, d.cfg.MgmtAddr, tls, d.cfg.HeartbeatInterval+d.cfg.HeartbeatTimeout, d.log)
	if err != nil {
		return config.CannotBind("DIRECTOR_MGMT_ADDR", d.cfg.MgmtAddr, err)
	}
	d.mgmtHTTP, err = nw.ListenStream(sameNumber(d.cfg.MgmtAddr, d.mgmt.Addr()))
	if err != nil {
		return config.CannotBind("DIRECTOR_MGMT_ADDR", d.cfg.MgmtAddr, err)
	}
	return nil
}

// mostTries is how many numbers of the system's choice are tried, until one is free for UDP and for TCP.
const mostTries = 8

// bindUser listens on the USER port.
func (d *Director) bindUser(nw quicnet.Network, conf *tls.Config, quicConf *quic.Config) (err error) {
	if d.user, err = quicnet.Listen(nw, d.cfg.UserAddr, conf, quicConf); err != nil || d.cfg.HTTP == "off" {
		return err
	}
	if d.userHTTP, err = nw.ListenStream(sameNumber(d.cfg.UserAddr, d.user.Addr())); err != nil {
		err = errors.Join(err, d.user.Close())
		d.user = nil
	}
	return err
}

// sameNumber is an address with the number that another listener got there: the system may have chosen it.
func sameNumber(addr string, bound net.Addr) string {
	host, _, err := net.SplitHostPort(addr)
	_, port, boundErr := net.SplitHostPort(bound.String())
	if err != nil || boundErr != nil {
		return addr
	}
	return net.JoinHostPort(host, port)
}

// clientRoles says who has to prove what on the USER port.
func (d *Director) clientRoles() map[string][]identity.Role {
	if d.cfg.ClientAuth != "certificate" {
		return nil
	}
	only := []identity.Role{identity.Client}
	return map[string][]identity.Role{wire.ALPNClient: only, http3.NextProtoH3: only}
}

// webTLS is how HTTP is spoken over TCP: nil for in the clear.
func (d *Director) webTLS() *tls.Config {
	if d.cfg.HTTP == "plain" || d.cfg.HTTP == "auto" && d.cfg.ClientAuth != "certificate" && config.IsLoopback(d.cfg.UserAddr) {
		return nil
	}
	return identity.WebTLS(d.tls, d.clientRoles()[http3.NextProtoH3])
}

// unbind releases what bind got before it failed.
func (d *Director) unbind() error {
	var errs []error
	if d.user != nil {
		errs = append(errs, d.user.Close())
	}
	if d.userHTTP != nil {
		errs = append(errs, d.userHTTP.Close())
	}
	if d.mgmt != nil {
		errs = append(errs, d.mgmt.Close())
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends. It stops in the reverse order of this list: first the clients, so that no stream
// begins that no worker could serve; MGMT last, so that it can be seen how the rest goes.
func (d *Director) Run(ctx context.Context) error {
	d.log.Info("director serves", zap.String("director", d.cfg.ID), zap.Stringer("user", d.user.Addr()), zap.Stringer("mgmt", d.mgmt.Addr()))
	d.warnOpen()
	var g run.Group
	g.Add("mgmt http", func(ctx context.Context) error { return d.http.Serve(ctx, d.mgmtHTTP) })
	g.Add("certificates", func(ctx context.Context) error {
		identity.WatchExpiry(ctx, d.tls, func(text string, at time.Time) { d.log.Warn(text, zap.Time("not_after", at)) })
		return nil
	})
	d.watchFiles(&g)
	g.Add("clock", func(ctx context.Context) error { return d.clock.Run(ctx, d.fleet.Watch) })
	g.Add("checkpoints", func(ctx context.Context) error {
		<-ctx.Done()
		d.checkpoints.Close()
		return nil
	})
	g.Add("workers", func(ctx context.Context) error {
		<-ctx.Done()
		d.fleet.Close()
		d.placement.Close()
		return nil
	})
	g.Add("mgmt", func(ctx context.Context) error {
		server := mgmt.Server{Health: d.health, Stream: d.serveMgmt}
		return server.Serve(ctx, d.mgmt)
	})
	g.Add("swaps", func(ctx context.Context) error {
		<-ctx.Done()
		d.operations.Close()
		d.maintenance.Close()
		return nil
	})
	g.Add("clients", func(ctx context.Context) error {
		d.serving.Store(true)
		defer context.AfterFunc(ctx, func() { d.serving.Store(false) })()
		if d.userHTTP == nil {
			return d.native.Serve(ctx, d.user)
		}
		var doors errgroup.Group // they drain at the same time
		doors.Go(func() error { return d.openai.Serve(ctx, d.userHTTP, d.webTLS()) })
		doors.Go(func() error { return d.native.Serve(ctx, d.user) })
		return doors.Wait()
	})
	g.Add("pings", d.user.AnswerPings)
	return g.Run(ctx)
}

// UserAddr returns the address that clients are served on.
func (d *Director) UserAddr() net.Addr { return d.user.Addr() }

// MgmtAddr returns the address that workers are served on.
func (d *Director) MgmtAddr() net.Addr { return d.mgmt.Addr() }
