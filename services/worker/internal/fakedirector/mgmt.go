package fakedirector

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Mgmt is a director's MGMT port, on number 61001.
type Mgmt struct {
	Registrations chan *wirepb.Register
	Heartbeats    chan *wirepb.Heartbeat

	mu     sync.Mutex
	conns  map[*quic.Conn]bool // on which somebody registered
	refuse func(*wirepb.Register) *wire.Error
	deaf   bool
	unable string // why it cannot reach the worker
	give   func(context.Context, mgmt.Stream, *wirepb.Pull) error

	instance string
	dead     atomic.Bool // its process was killed
	stop     context.CancelFunc
	served   chan struct{} // closed when nothing of it runs any more
}

// Listen serves registrations from host on. It does not say which process it is, as directors of the release before.
func (w *World) Listen(t *testing.T, host quicnet.Network) *Mgmt {
	t.Helper()
	return w.ListenAs(t, host, "")
}

// ListenAs is Listen for a director's process with that instance.
func (w *World) ListenAs(t *testing.T, host quicnet.Network, instance string) *Mgmt {
	t.Helper()
	tlsConf := identity.ServerTLS(w.TLS[identity.Director], []string{wire.ALPNMgmt},
		map[string][]identity.Role{wire.ALPNMgmt: {identity.Worker}})
	l, err := quicnet.Listen(host, ":61001", tlsConf, quicnet.MgmtConfig(eventTimeout))
	if err != nil {
		t.Fatal(err)
	}
	m := &Mgmt{
		Registrations: make(chan *wirepb.Register, 1<<10),
		Heartbeats:    make(chan *wirepb.Heartbeat, 1<<10),
		served:        make(chan struct{}),
		conns:         make(map[*quic.Conn]bool),
		instance:      instance,
	}
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	server := mgmt.Server{Health: func() *wirepb.HealthReply { return &wirepb.HealthReply{Name: "director-1", Instance: instance} }, Stream: m.serve}
	go func() {
		defer close(m.served)
		if err := server.Serve(ctx, l); err != nil && !m.dead.Load() {
			t.Errorf("the director's MGMT port: %v", err)
		}
	}()
	return m
}

// Close ends it, telling the workers.
func (m *Mgmt) Close() {
	m.stop()
	<-m.served
}

// Die ends it as kill -9 does, with everything else on its host. Nobody is told but by the host's kernel.
func (m *Mgmt) Die(host *simtest.Host) {
	m.dead.Store(true)
	host.Kill()
	m.Close()
}

// Refuse makes it refuse registrations, or take them (nil).
func (m *Mgmt) Refuse(err *wire.Error) {
	m.RefuseSome(func(*wirepb.Register) *wire.Error { return err })
}

// RefuseSome makes it refuse those registrations for which there is an error.
func (m *Mgmt) RefuseSome(refuse func(*wirepb.Register) *wire.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = refuse
}

// Give lets the director answer whoever pulls a checkpoint from it.
func (m *Mgmt) Give(give func(ctx context.Context, s mgmt.Stream, ask *wirepb.Pull) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.give = give
}

// Deafen makes it leave heartbeats unanswered.
func (m *Mgmt) Deafen(deaf bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = deaf
}

// CannotReach makes it tell workers why it cannot reach them, or that it can (empty).
func (m *Mgmt) CannotReach(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unable = why
}

func (m *Mgmt) serve(ctx context.Context, s mgmt.Stream, first wire.Message) error {
	m.mu.Lock()
	refuse, give := m.refuse, m.give
	m.mu.Unlock()
	switch first := first.(type) {
	case *wirepb.Register:
		m.count(s.Conn)
		m.Registrations <- first
		if refuse != nil {
			if err := refuse(first); err != nil {
				return err
			}
		}
		return m.heartbeats(s)
	case *wirepb.Pull:
		if give != nil {
			return give(ctx, s, first)
		}
	}
	return errors.New("not a registration")
}

// Connections is how many connections there were on which somebody registered.
func (m *Mgmt) Connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.conns)
}

func (m *Mgmt) count(conn *quic.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns[conn] = true
}

func (m *Mgmt) heartbeats(s mgmt.Stream) error {
	reply := wire.Append(nil, &wirepb.Registered{DirectorId: "director-1", DirectorInstance: m.instance})
	for {
		if _, err := s.Write(reply); err != nil {
			return err
		}
		beat, err := wire.ReadMessage[*wirepb.Heartbeat](s.Reader)
		if err != nil {
			return err
		}
		m.Heartbeats <- beat
		reply = nil
		m.mu.Lock()
		if !m.deaf {
			reply = wire.Append(nil, &wirepb.HeartbeatAck{Count: beat.GetCount(), Unreachable: m.unable})
		}
		m.mu.Unlock()
	}
}
