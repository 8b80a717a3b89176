package director

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// serveMgmt serves one stream of the MGMT port: a worker registers, or pulls a checkpoint. What a peer may do follows from
// the role in its certificate, whatever it says of itself.
func (d *Director) serveMgmt(ctx context.Context, s mgmt.Stream, first wire.Message) error {
	role, _ := identity.PeerRole(s.Conn.ConnectionState().TLS)
	switch m := first.(type) {
	case *wirepb.Register:
		if role == identity.Worker {
			return d.serveWorker(ctx, s, m)
		}
		return d.turnAway(s, role, "register a worker")
	case *wirepb.Pull:
		if role == identity.Worker {
			return d.checkpoints.server.Serve(ctx, s, m)
		}
		return d.turnAway(s, role, "pull a checkpoint")
	}
	return wire.Errorf(wire.CodeProtocol, "expected Register or Pull")
}

// turnAway refuses a peer whose certificate is of another role than the request needs.
func (d *Director) turnAway(s mgmt.Stream, role identity.Role, what string) error {
	d.log.Warn("refused", zap.Stringer("address", s.Conn.RemoteAddr()), zap.String("role", string(role)), zap.String("wanted", what),
		telemetry.From(s.Conn.RemoteAddr().String()))
	return wire.Errorf(wire.CodeUnauthorized, "a certificate of role %q cannot %s", role, what)
}

// serveWorker registers a worker and takes its heartbeats until one is overdue or its connection ends.
func (d *Director) serveWorker(ctx context.Context, s mgmt.Stream, register *wirepb.Register) error {
	info, err := described(register, s.Conn.RemoteAddr(), d.versions)
	if err == nil {
		err = identified(&info, s.Conn.ConnectionState().TLS)
	}
	var registration *fleet.Registration
	if err == nil {
		registration, err = d.fleet.Register(info)
	}
	if err != nil {
		d.log.Warn("registration refused", zap.String("worker", wire.Text(register.GetWorker())),
			zap.Stringer("address", s.Conn.RemoteAddr()), zap.Error(err), telemetry.From(s.Conn.RemoteAddr().String()))
		return err
	}
	defer registration.Close()
	if _, err := s.Write(wire.Append(nil, &wirepb.Registered{DirectorId: d.cfg.ID, DirectorInstance: d.instance})); err != nil {
		return err
	}
	return d.heartbeats(ctx, s, registration)
}

// heartbeats answers a worker's heartbeats until one is overdue or the connection ends. Losing them ends no stream: the
// link decides whether a worker is lost.
func (d *Director) heartbeats(ctx context.Context, s mgmt.Stream, registration *fleet.Registration) error {
	defer context.AfterFunc(ctx, func() { s.CancelRead(wire.StreamOk) })()
	for {
		if err := s.SetReadDeadline(time.Now().Add(d.cfg.HeartbeatInterval + d.cfg.HeartbeatTimeout)); err != nil {
			return err
		}
		beat, err := wire.ReadRequest[*wirepb.Heartbeat](s.Reader)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !registration.Heartbeat(int(beat.GetSessions())) {
			return wire.Errorf(wire.CodeSuperseded, "another instance has registered under this worker's label")
		}
		if _, err := s.Write(wire.Append(nil, &wirepb.HeartbeatAck{Count: beat.GetCount(), Unreachable: wire.Text(registration.Unreachable())})); err != nil {
			return err
		}
	}
}

// described checks what a worker says of itself, and fills in what it left open. What a worker says is shown to people
// and dialled, so nothing unprintable or unreachable passes. The error says which variable of the worker to change.
func described(r *wirepb.Register, from net.Addr, own wire.Versions) (link.Peer, error) {
	theirs := wire.Versions{Oldest: cmp.Or(r.GetOldestVersion(), r.GetVersion()), Newest: r.GetVersion()}
	version := own.Common(theirs)
	if version == 0 {
		return link.Peer{}, wire.Errorf(wire.CodeVersion, "worker speaks version %v, this director %v", theirs, own)
	}
	user, err := reachable(r.GetUserAddr(), from)
	if err != nil {
		return link.Peer{}, wire.Errorf(wire.CodeInvalid, "CONNECTION_SWAP_WORKER_ADVERTISE_USER_ADDR: %v", err)
	}
	mgmtAddr, err := reachable(r.GetMgmtAddr(), from)
	if err != nil {
		return link.Peer{}, wire.Errorf(wire.CodeInvalid, "CONNECTION_SWAP_WORKER_ADVERTISE_MGMT_ADDR: %v", err)
	}
	if err := config.CheckName(r.GetWorker()); err != nil {
		return link.Peer{}, wire.Errorf(wire.CodeInvalid, "CONNECTION_SWAP_WORKER_LABEL=%.80q: %v", r.GetWorker(), err)
	}
	if err := config.CheckName(r.GetInstance()); err != nil {
		return link.Peer{}, wire.Errorf(wire.CodeInvalid, "instance %.80q: %v", r.GetInstance(), err)
	}
	switch capacity := r.GetCapacity(); {
	case capacity == 0:
		return link.Peer{}, wire.Errorf(wire.CodeInvalid, "CONNECTION_SWAP_WORKER_CAPACITY=0: a worker needs room for a stream")
	case capacity > math.MaxInt32:
		return link.Peer{}, wire.Errorf(wire.CodeInvalid, "CONNECTION_SWAP_WORKER_CAPACITY=%d: a worker has room for at most %d", capacity, math.MaxInt32)
	}
	models, err := modelsOf(r.GetModels())
	if err != nil {
		return link.Peer{}, err
	}
	for _, text := range []string{user, mgmtAddr, r.GetBuild(), r.GetDrainedBy()} {
		if len(text) > longestText || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return link.Peer{}, wire.Errorf(wire.CodeInvalid, "%.80q: allowed are %d bytes of what can be printed", text, longestText)
		}
	}
	return link.Peer{
		Label: r.GetWorker(), Instance: r.GetInstance(), UserAddr: user, MgmtAddr: mgmtAddr,
		Models: models, Capacity: int(r.GetCapacity()), Version: version, Build: r.GetBuild(), Server: wire.Text(r.GetServer()),
		Drained: r.GetDrained(), DrainedBy: r.GetDrainedBy(),
	}, nil
}

// Bounds on what a worker may have.
const (
	maxModels = 64
	maxAPIs   = 16 // of one model
)

// modelsOf checks what a worker says of its models.
func modelsOf(all []*wirepb.Model) ([]routing.Model, error) {
	if len(all) == 0 || len(all) > maxModels {
		return nil, wire.Errorf(wire.CodeInvalid, "a worker with %d models: allowed are 1 to %d", len(all), maxModels)
	}
	models := make([]routing.Model, len(all))
	for i, m := range all {
		for i, text := range []string{m.GetName(), m.GetFingerprint(), m.GetClass()} {
			if text == "" && i < 2 || len(text) > longestText || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				return nil, wire.Errorf(wire.CodeInvalid, "model %.80q with fingerprint %.80q: allowed are 1 to %d bytes of what can be printed",
					m.GetName(), m.GetFingerprint(), longestText)
			}
		}
		if len(m.GetApis()) > maxAPIs || slices.ContainsFunc(m.GetApis(), func(api string) bool { return !wire.IsAPI(api) }) {
			return nil, wire.Errorf(wire.CodeInvalid, "model %.80q answers %.200q; there are: %s", m.GetName(), m.GetApis(), strings.Join(wire.APIs, ", "))
		}
		if slices.ContainsFunc(models[:i], func(other routing.Model) bool { return other.Name == m.GetName() }) {
			return nil, wire.Errorf(wire.CodeInvalid, "model %.80q twice", m.GetName())
		}
		models[i] = routing.Model{
			Name: m.GetName(), Fingerprint: m.GetFingerprint(), Capacity: int(min(m.GetCapacity(), math.MaxInt32)),
			Stateful: m.GetStateful(), Continuity: min(m.GetContinuity(), wire.ContinuityExact), APIs: m.GetApis(), Class: m.GetClass(),
		}
	}
	return models, nil
}

// identified takes note of a worker's certificate, which has to name it if it names anybody.
func identified(peer *link.Peer, state tls.ConnectionState) error {
	names := identity.PeerNames(state)
	if len(names) > 0 && !slices.Contains(names, peer.Label) {
		return wire.Errorf(wire.CodeUnauthorized,
			"CONNECTION_SWAP_WORKER_LABEL=%s: the certificate is for %q", peer.Label, names)
	}
	peer.Certificate, peer.Named = identity.PeerCertificate(state), len(names) > 0
	return nil
}

// longestText is a host name of full length with a port, in bytes.
const longestText = 260

// reachable fills in the host that packets come from where a worker does not know its own. The error says why nobody
// could dial the address.
func reachable(addr string, from net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if host == "" {
		if host, _, err = net.SplitHostPort(from.String()); err != nil {
			return "", err
		}
	}
	if port == "0" {
		return "", errors.New("port 0 is none")
	}
	if err := config.CheckPort(port); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, port), config.CheckReachable(host)
}
