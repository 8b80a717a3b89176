// Package link is one standing connection to one worker's process: what the director sends on it, who gets what the
// worker answers, and how its end is noticed. It knows nothing of other workers, nor of who is given which stream.
package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Peer is a worker's process as it describes itself when it registers. It does not change: a new process is a new Peer.
type Peer struct {
	Label       string
	Instance    string // new with each start of the process
	UserAddr    string // of its links and tethers
	MgmtAddr    string
	Models      []routing.Model // that it had at registration, at least one; the first serves streams that name none
	Capacity    int             // streams at once, of all models
	Version     uint32          // of the protocol to speak with it
	Build       string
	Server      string // inference server that it stands beside, for people; empty for none
	Drained     bool   // it said at registration that an operator had taken it out of use
	DrainedBy   string // id of the director that told it so
	Certificate string // with which it registered; see identity.PeerCertificate
	Named       bool   // that names Label
}

// Names returns the names of the worker's models.
func (p Peer) Names() []string {
	all := make([]string, len(p.Models))
	for i, m := range p.Models {
		all[i] = m.Name
	}
	return all
}

// Describe names the fingerprints of the worker's models.
func (p Peer) Describe() string {
	all := make([]string, len(p.Models))
	for i, m := range p.Models {
		all[i] = m.Fingerprint
	}
	return strings.Join(all, ", ")
}

// Config is what all links of a director have in common.
type Config struct {
	DirectorID      string
	Instance        string        // of this process: it tells workers its links from those of the process before it
	KeepAlive       time.Duration // how often a worker with streams shall report progress; one without streams has longer
	IdleTimeout     time.Duration // without any packet
	ProgressTimeout time.Duration // without progress, while packets come
	Clock           *clock.StallProof
	Flow            Flow // optional
}

// Flow is told what goes through links: once for each batch, not for each chunk. It must not block.
type Flow interface {
	Batch(chunks, tokens int, took time.Duration)
	Interval(d time.Duration)
	Fenced(chunks uint64)
}

// noFlow is nobody to be told.
type noFlow struct{}

func (noFlow) Batch(int, int, time.Duration) {}
func (noFlow) Interval(time.Duration)        {}
func (noFlow) Fenced(uint64)                 {}

// Owner is told what becomes of a link. The link's goroutines call it; it must not block.
type Owner interface {
	// Up says that the link can be given streams. It is the first call.
	Up(l *Link)
	// Status passes on what the worker says of itself. If it failed, the link has let go of its streams before.
	Status(l *Link, m *wirepb.WorkerStatus)
	// Declined says that the worker refused a stream because it has no room, or is not ready.
	Declined(l *Link)
	// Down says that the link is lost. It is the last call, and comes only if Up came.
	Down(l *Link, cause Cause)
}

// Link is one connection to one worker. Make it with New, and call Run once; Run owns the link's goroutines: one reads
// the control stream, one each of the token streams, one the reports of progress, one writes, one watches the tether.
// The first of them to end ends the link. All other methods may be called from any goroutine from Owner.Up on; after
// Down they do nothing. What is sent goes into a queue that is bounded in bytes: a worker that takes too little is
// lost.
type Link struct {
	cfg    Config
	dialer Dialer
	owner  Owner
	peer   Peer
	log    *zap.Logger

	models  atomic.Pointer[[]routing.Model]
	tether  string // id with which the worker binds the tether to this link
	control *wire.Outbox
	conn    Conn // set before Up
	lose    context.CancelCauseFunc

	watch    watch                           // owned by whoever calls Judge
	fenced   atomic.Uint64                   // tokens for streams that were no longer attached
	progress atomic.Pointer[wirepb.Progress] // the newest report; nil before the first
	arrived  atomic.Uint64                   // bytes that were read from token streams
	greeting uint64                          // bytes of the control stream before those of the outbox; set before Up
	up       atomic.Bool
	ready    atomic.Pointer[readiness] // as the worker said last; nil before its welcome

	busy  atomic.Bool // has streams, or had some a moment ago: the worker was asked to hurry
	sinks sinks
}

// tokenStreams is how many streams a worker spreads its tokens over, so that one lost packet does not hold up
// all sessions.
const tokenStreams = 4

// New returns a link that is not connected yet.
func New(cfg Config, dialer Dialer, owner Owner, peer Peer, log *zap.Logger) *Link {
	if cfg.Flow == nil {
		cfg.Flow = noFlow{}
	}
	l := &Link{
		cfg: cfg, dialer: dialer, owner: owner, peer: peer, tether: identity.NewID(),
		log:   log.With(zap.String("worker", peer.Label), telemetry.Often(peer.UserAddr)),
		sinks: sinks{attached: map[uint64]attachment{}, holding: map[uint64]Holder{}},
	}
	l.SetModels(peer.Models)
	l.control = wire.NewOutbox(wire.MaxBacklog, func(err error) { l.Lose(classify(err)) })
	return l
}

// Run connects, and holds the link until it is lost or ctx ends; ctx's cause should be made with Lost. It reports
// whether the link was up, and returns when nothing of it runs any more.
func (l *Link) Run(ctx context.Context) (up bool, err error) {
	ctx, l.lose = context.WithCancelCause(ctx)
	defer l.lose(nil)
	control, frames, err := l.dial(ctx)
	if err != nil {
		return false, err
	}
	l.log.Info("worker connected", zap.String("address", l.peer.UserAddr))
	l.up.Store(true)
	l.owner.Up(l)
	var running sync.WaitGroup
	running.Go(func() { l.lose(classify(l.control.Run(ctx, control))) })
	running.Go(func() { l.lose(classify(controlReader{l, frames}.run())) })
	running.Go(func() { l.lose(classify(l.readProgress(ctx))) })
	running.Go(func() { l.lose(classify(l.acceptTokens(ctx, &running))) })
	running.Go(func() { l.lose(l.watchTether(ctx)) })

	<-ctx.Done()
	err = ownFault(context.Cause(ctx), l.cfg.Clock.Stall())
	l.down(err)
	code := wire.QUICLost
	if CauseOf(err) == CauseShutdown {
		code = wire.QUICShutdown
	}
	_ = l.conn.Close(code, wire.Text(err.Error()))
	running.Wait()
	return true, err
}

// dial connects and greets. A worker that accepts the connection but does not greet is one that hangs.
func (l *Link) dial(ctx context.Context) (Control, *wire.Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*l.cfg.ProgressTimeout)
	defer cancel()
	conn, err := l.dialer.Dial(ctx, l.peer)
	if err != nil {
		return nil, nil, fmt.Errorf("dialling %s: %w", l.peer.UserAddr, err)
	}
	l.conn = conn
	control, frames, err := l.greet(ctx)
	if err != nil {
		_ = conn.Close(wire.QUICProtocol, wire.Text(err.Error()))
		return nil, nil, fmt.Errorf("greeting %s: %w", l.peer.UserAddr, err)
	}
	return control, frames, nil
}

// greet opens the control stream, says who the director is, and hears whether the worker is the one expected.
func (l *Link) greet(ctx context.Context) (Control, *wire.Reader, error) {
	control, err := l.conn.OpenControl(ctx)
	if err != nil {
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := control.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	hello := &wirepb.LinkHello{
		Version: l.peer.Version, DirectorId: l.cfg.DirectorID, TokenStreams: tokenStreams, Tether: l.tether,
		ProgressIntervalMs: milliseconds(l.cfg.leisure() * l.cfg.KeepAlive), DirectorInstance: l.cfg.Instance,
	}
	greeting := wire.Append(nil, hello)
	l.greeting = uint64(len(greeting))
	if _, err := control.Write(greeting); err != nil {
		return nil, nil, err
	}
	frames := wire.NewReader(control, wire.MaxControl)
	welcome, err := wire.ReadMessage[*wirepb.LinkWelcome](frames)
	if err != nil {
		return nil, nil, err
	}
	if welcome.GetInstance() != l.peer.Instance {
		return nil, nil, wire.Errorf(wire.CodeSuperseded, "instance %s answers as %q, expected was %s",
			welcome.GetInstance(), welcome.GetWorker(), l.peer.Instance)
	}
	l.says(welcome.GetAvailable(), welcome.GetReason())
	return control, frames, control.SetDeadline(time.Time{})
}

// down lets go of all streams and tells the owner.
func (l *Link) down(err error) {
	l.up.Store(false)
	cause := CauseOf(err)
	level := zap.WarnLevel
	if cause == CauseShutdown {
		level = zap.InfoLevel
	}
	l.log.Log(level, "worker lost", zap.String("cause", string(cause)), zap.Int("sessions", l.sinks.detachAll()), zap.Error(err))
	l.cfg.Flow.Fenced(l.fenced.Load())
	l.owner.Down(l, cause)
}

// Lose ends the link; err should be made with Lost. Only the first reason counts.
func (l *Link) Lose(err error) { l.lose(err) }

// Up reports whether the worker can be reached, as far as is known.
func (l *Link) Up() bool { return l.up.Load() }

// Available reports whether the worker can be reached and takes new streams, as far as is known.
func (l *Link) Available() bool {
	ready := l.ready.Load()
	return l.up.Load() && ready != nil && ready.available
}

// Reason returns why the worker takes no new streams, as it says itself, for people; empty if it does.
func (l *Link) Reason() string {
	if ready := l.ready.Load(); ready != nil && !ready.available {
		return ready.reason
	}
	return ""
}

// readiness is whether a worker takes new streams, and why not.
type readiness struct {
	available bool
	reason    string
}

// says takes note of what the worker says of itself.
func (l *Link) says(available bool, reason string) {
	l.ready.Store(&readiness{available, wire.Text(reason)})
}

// Fenced returns how many tokens came for streams that were no longer attached.
func (l *Link) Fenced() uint64 { return l.fenced.Load() }

// Peer returns the worker's process at the other end.
func (l *Link) Peer() Peer { return l.peer }

// Worker returns the label of the worker.
func (l *Link) Worker() string { return l.peer.Label }

// Models returns the models that the worker has now. The slice does not change.
func (l *Link) Models() []routing.Model { return *l.models.Load() }

// SetModels says which models the worker has from now on.
func (l *Link) SetModels(models []routing.Model) { l.models.Store(&models) }

// Model returns the worker's model of a name, or its first one for none; false if it has none of that name.
func (l *Link) Model(name string) (routing.Model, bool) {
	for _, m := range l.Models() {
		if name == "" || m.Name == name {
			return m, true
		}
	}
	return routing.Model{}, false
}

// Interval passes on what the usual time between the chunks of a stream is.
func (l *Link) Interval(d time.Duration) { l.cfg.Flow.Interval(d) }

// Stats returns the numbers of the link's QUIC connection. The link has to be up, or have been.
func (l *Link) Stats() quic.ConnectionStats { return l.conn.Stats() }

// Stateful reports whether some model of the worker has a state that moves with a stream.
func (l *Link) Stateful() bool {
	return slices.ContainsFunc(l.Models(), func(m routing.Model) bool { return m.Stateful })
}

// MgmtAddr is where the worker's MGMT port is.
func (l *Link) MgmtAddr() string { return l.peer.MgmtAddr }

// LocalAddr is the address of this end of the link, "ip:port".
func (l *Link) LocalAddr() string { return l.conn.LocalAddr().String() }
