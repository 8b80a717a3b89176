package worker

import (
	"errors"
	"net"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// ports are the worker's listeners: QUIC and TCP on the same number, twice.
type ports struct {
	user   *quicnet.Listener
	tether net.Listener
	mgmt   *quicnet.Listener
	http   net.Listener
}

// freePortTries is how often a pair is tried where the system chooses the number: the same number may be
// taken for TCP.
const freePortTries = 16

// listen binds all addresses, or none. The error has a config.Problem for each that cannot be bound.
func (w *Worker) listen() (*ports, error) {
	var p ports
	var userErr, mgmtErr error
	p.user, p.tether, userErr = w.listenPair("WORKER_USER_ADDR", w.cfg.UserAddr, w.listenLinks)
	p.mgmt, p.http, mgmtErr = w.listenPair("WORKER_MGMT_ADDR", w.cfg.MgmtAddr, w.listenMgmt)
	switch {
	case userErr == nil && mgmtErr == nil:
		return &p, nil
	case userErr == nil:
		return nil, errors.Join(mgmtErr, p.tether.Close(), p.user.Close())
	case mgmtErr == nil:
		return nil, errors.Join(userErr, p.http.Close(), p.mgmt.Close())
	}
	return nil, errors.Join(userErr, mgmtErr)
}

func (w *Worker) listenLinks(addr string) (*quicnet.Listener, error) {
	tlsConf := identity.ServerTLS(w.deps.TLS, []string{wire.ALPNLink},
		map[string][]identity.Role{wire.ALPNLink: {identity.Director}})
	return quicnet.Listen(w.deps.Network, addr, tlsConf, quicnet.LinkConfig(0))
}

func (w *Worker) listenMgmt(addr string) (*quicnet.Listener, error) {
	return mgmt.Listen(w.deps.Network, addr, w.deps.TLS, w.cfg.HeartbeatInterval+w.cfg.HeartbeatTimeout, w.deps.Log)
}

// listenPair binds UDP and TCP on the same number. If the system chooses the number, another one is tried where it is taken
// for TCP.
func (w *Worker) listenPair(variable, addr string, listen func(string) (*quicnet.Listener, error)) (*quicnet.Listener, net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, config.CannotBind(variable, addr, err)
	}
	for try := 1; ; try++ {
		udp, err := listen(addr)
		if err != nil {
			return nil, nil, config.CannotBind(variable, addr, err)
		}
		tcp, err := w.deps.Network.ListenStream(net.JoinHostPort(host, portOf(udp.Addr())))
		if err == nil {
			return udp, tcp, nil
		}
		err = errors.Join(err, udp.Close())
		if port != "0" || try == freePortTries {
			return nil, nil, config.CannotBind(variable, addr, err)
		}
	}
}

// advertised is where others reach a listener: what is configured, or the address it is bound to, where the
// host may be empty, for them to find out.
func advertised(configured, addr string, bound net.Addr) string {
	if configured != "" {
		return configured
	}
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || ip != nil && ip.IsUnspecified() {
		host = ""
	}
	return net.JoinHostPort(host, portOf(bound))
}

func portOf(addr net.Addr) string {
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	return port
}
