// Package worker is a whole worker in one value: it registers at directors, takes sessions from them and
// sends them tokens. It has no global state and meets the network only through its Deps, so that many can run
// in one process, on a simulated network.
package worker

import (
	"context"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/chaos"
	"github.com/connswap/connswap/services/worker/internal/link"
	"github.com/connswap/connswap/services/worker/internal/registrar"
	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/services/worker/internal/state"
	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/run"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Deps are what a Worker takes from outside. The zero value of an optional one stands for what a process has.
type Deps struct {
	Network quicnet.Network // optional: the operating system's
	TLS     identity.Source // of a worker
	Log     *zap.Logger     // optional: none
	// LogCounts are of Log's lines; optional.
	LogCounts func() telemetry.Counts
	Engine    engine.Engine // the only one; optional: the configured ones
	Version   uint32        // of the protocol to claim towards directors, and no other; optional: what the build speaks
	// Die ends the process at once, without a goodbye; it may return. Optional: SIGKILL to this process.
	Die    func()
	Memory memory.Limit // of the process; optional: none
}

// Worker is one worker: the wiring of its parts, and what it answers on the MGMT port. Run owns all goroutines.
type Worker struct {
	cfg      config.Worker
	deps     Deps
	wrapped  map[*upstream.Engine]engine.Engine // as the sessions have them; the goroutine of the monitor owns it
	instance string
	versions wire.Versions
	started  time.Time

	chaos    *chaos.Chaos
	states   *state.Keeper
	sessions *session.Table
	links    *link.Server
	injector *chaos.Injector
	beside   *beside // nil but for the engine upstream

	// Set by Run before anything serves.
	ports     *ports
	registrar *registrar.Registrar
	check     *mgmt.Checkup
}

// New returns a Worker that does nothing until Run. cfg has to be valid.
func New(cfg config.Worker, deps Deps) (*Worker, error) {
	if deps.Network == nil {
		deps.Network = quicnet.OS{}
	}
	if deps.Log == nil {
		deps.Log = zap.NewNop()
	}
	if deps.LogCounts == nil {
		deps.LogCounts = func() telemetry.Counts { return telemetry.Counts{} }
	}
	if deps.Die == nil {
		deps.Die = kill
	}
	deps.Log = deps.Log.With(zap.String("worker", cfg.Label))
	w := &Worker{
		cfg: cfg, deps: deps, instance: identity.NewID(),
		started: time.Now(), wrapped: map[*upstream.Engine]engine.Engine{},
	}
	stands := deps.Engine == nil && cfg.Engine == config.Upstream
	pace := cfg.TokenInterval
	if stands {
		pace = 0 // the server has its own
	}
	w.chaos = chaos.New(cfg.FailureMode, pace, cfg.PacketLoss)
	models := []session.Model{{Engine: deps.Engine}}
	if deps.Engine == nil {
		var err error
		if models, err = modelsOf(cfg); err != nil {
			return nil, err
		}
	}
	for i := range models {
		models[i].Engine = w.chaos.Engine(models[i].Engine)
	}
	w.deps.Network = w.chaos.Network(deps.Network)
	w.versions = wire.PeerVersions(deps.Version)
	w.states = state.New(state.Config{
		Label: cfg.Label, MaxState: cfg.MaxStateBytes, MaxSnapshots: deps.Memory.Part(4, cfg.MaxSnapshotBytes), TransferRate: cfg.TransferRate,
	}, w.deps.Network, deps.TLS, deps.Log)
	w.sessions = session.NewTable(session.Config{
		Models: models, Capacity: cfg.Capacity, MaxBytes: deps.Memory.Budget(cfg.MaxBytes), Log: deps.Log,
	})
	w.links = link.New(
		link.Config{Label: cfg.Label, Instance: w.instance, Versions: w.versions},
		link.Deps{
			Sessions: w.sessions, States: w.states, Log: deps.Log,
			LinkEnded: func(instance string) { w.registrar.LinkEnded(instance) },
		},
	)
	w.injector = w.newInjector()
	if stands {
		var err error
		if w.beside, err = w.newBeside(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// kill ends the process without running anything any more, as a crash does.
func kill() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL) // a process may always signal itself
	os.Exit(128 + int(syscall.SIGKILL))                 // the first process of a container is immune to its own signals
}

// FailNow makes the configured simulated failure happen at once.
func (w *Worker) FailNow() { w.injector.Now() }

// Run serves until ctx ends. Then it takes nothing new, lets the directors move its sessions away, for as long as it is
// configured to wait for that, and leaves. An address that cannot be bound is a
// config.Problem. When Run returns, no socket and no goroutine of the worker is left, and it cannot run again.
func (w *Worker) Run(ctx context.Context) error {
	ports, err := w.listen()
	if err != nil {
		return err
	}
	w.ports = ports
	w.registrar, w.check = w.newRegistrar(ports), w.checkup(ports)
	w.deps.Log.Info("worker started", zap.String("instance", w.instance),
		zap.Stringer("user_addr", ports.user.Addr()), zap.Stringer("mgmt_addr", ports.mgmt.Addr()),
		zap.Strings("models", w.names()), zap.Int("capacity", w.cfg.Capacity),
		zap.String("failure_mode", w.cfg.FailureMode))
	defer w.deps.Log.Info("worker stopped")

	// They stop from the last to the first: no more simulated failures; directors no longer count on this
	// worker; sessions go to others; and only then nobody can ask any more how it is.
	var actors run.Group
	actors.Add("mgmt http", func(ctx context.Context) error {
		server := mgmt.HTTP{Handler: w.routes(), TLS: identity.HTTPServerTLS(w.deps.TLS), Log: w.deps.Log}
		return server.Serve(ctx, ports.http)
	})
	actors.Add("certificates", func(ctx context.Context) error {
		identity.WatchExpiry(ctx, w.deps.TLS, func(text string, at time.Time) { w.deps.Log.Warn(text, zap.Time("not_after", at)) })
		return nil
	})
	actors.Add("mgmt quic", func(ctx context.Context) error {
		defer w.states.Close()
		server := mgmt.Server{Health: w.health, Stream: w.serveMgmt}
		return server.Serve(ctx, ports.mgmt)
	})
	actors.Add("links", func(ctx context.Context) error {
		return w.links.Serve(ctx, w.chaos.Listener(link.Over(ports.user)), ports.tether)
	})
	actors.Add("registrar", w.registrar.Run)
	if w.beside != nil {
		actors.Add("monitor", func(ctx context.Context) error {
			defer w.beside.server.Close()
			return w.beside.monitor.Run(ctx)
		})
	}
	actors.Add("failures", w.injector.Run)
	actors.Add("drain", func(stopping context.Context) error {
		select {
		case <-ctx.Done():
			w.sessions.Drain(stopping, w.cfg.DrainTimeout)
		case <-stopping.Done():
		}
		return nil
	})
	return actors.Run(context.WithoutCancel(ctx))
}

// names returns the names of the worker's models.
func (w *Worker) names() []string {
	models := w.sessions.Models()
	all := make([]string, len(models))
	for i, m := range models {
		all[i] = m.Name()
	}
	return all
}

// protos are the models as directors are told of them.
func (w *Worker) protos() []*wirepb.Model {
	models := w.sessions.Models()
	all := make([]*wirepb.Model, len(models))
	for i, m := range models {
		all[i] = m.Proto()
		if w.beside != nil {
			all[i].Class = w.beside.monitor.Class(m.Engine)
		}
	}
	return all
}

// serveMgmt answers whoever needs a state that this worker has.
func (w *Worker) serveMgmt(ctx context.Context, s mgmt.Stream, first wire.Message) error {
	role, _ := identity.PeerRole(s.Conn.ConnectionState().TLS)
	pull, ok := first.(*wirepb.Pull)
	switch {
	case !ok:
		return wire.Errorf(wire.CodeProtocol, "expected Pull")
	case role != identity.Worker && role != identity.Director:
		w.deps.Log.Warn("refused", zap.Stringer("address", s.Conn.RemoteAddr()), zap.String("role", string(role)), zap.String("wanted", "pull a state"),
			telemetry.From(s.Conn.RemoteAddr().String()))
		return wire.Errorf(wire.CodeUnauthorized, "a certificate of role %q cannot pull a state", role)
	}
	return w.states.Serve(ctx, s, pull)
}

// newRegistrar returns the registrar, which says where the worker's ports are: they have to be bound before.
func (w *Worker) newRegistrar(ports *ports) *registrar.Registrar {
	return registrar.New(
		registrar.Config{
			Directors: w.cfg.Directors,
			Interval:  w.cfg.HeartbeatInterval,
			Timeout:   w.cfg.HeartbeatTimeout,
			Register: &wirepb.Register{
				Version:       w.versions.Newest,
				OldestVersion: w.versions.Oldest,
				Build:         wire.Build,
				Worker:        w.cfg.Label,
				Instance:      w.instance,
				UserAddr:      advertised(w.cfg.AdvertiseUserAddr, w.cfg.UserAddr, ports.user.Addr()),
				MgmtAddr:      advertised(w.cfg.AdvertiseMgmtAddr, w.cfg.MgmtAddr, ports.mgmt.Addr()),
				Capacity:      uint32(w.cfg.Capacity),
			},
		},
		registrar.Deps{
			Network:   w.deps.Network,
			TLS:       identity.ClientTLS(w.deps.TLS, wire.ALPNMgmt, identity.Director),
			Log:       w.deps.Log,
			Load:      w.chaos.Load(w.load),
			Models:    w.protos,
			Server:    w.serverLine,
			DrainedBy: w.links.DrainedBy,
			Replaced:  w.links.Forget,
		},
	)
}
