package fakedirector

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Mgmt is a director's MGMT port, on number 61001.
type Mgmt struct {
	Registrations chan *wirepb.Register
	Heartbeats    chan *wirepb.Heartbeat

	mu     sync.Mutex
	refuse *wire.Error
	deaf   bool

	stop   context.CancelFunc
	served chan struct{} // closed when nothing of it runs any more
}

// Listen serves registrations from host on.
func (w *World) Listen(t *testing.T, host quicnet.Network) *Mgmt {
	t.Helper()
	tlsConf := identity.ServerTLS(w.TLS[identity.Director], []string{wire.ALPNMgmt},
		map[string][]identity.Role{wire.ALPNMgmt: {identity.Worker}})
	l, err := quicnet.Listen(host, ":61001", tlsConf, quicnet.MgmtConfig(patience))
	if err != nil {
		t.Fatal(err)
	}
	m := &Mgmt{
		Registrations: make(chan *wirepb.Register, 1<<10),
		Heartbeats:    make(chan *wirepb.Heartbeat, 1<<10),
		served:        make(chan struct{}),
	}
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	face := mgmt.Face{Health: func() *wirepb.HealthReply { return &wirepb.HealthReply{} }, Stream: m.register}
	go func() {
		defer close(m.served)
		if err := face.Serve(ctx, l); err != nil {
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

// Refuse makes it refuse registrations, or take them (nil).
func (m *Mgmt) Refuse(err *wire.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

// Deafen makes it leave heartbeats unanswered.
func (m *Mgmt) Deafen(deaf bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = deaf
}

func (m *Mgmt) register(_ context.Context, s mgmt.Stream, first wire.Message) error {
	registration, ok := first.(*wirepb.Register)
	if !ok {
		return errors.New("not a registration")
	}
	m.Registrations <- registration
	m.mu.Lock()
	refuse := m.refuse
	m.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	reply := wire.Append(nil, &wirepb.Registered{DirectorId: "director-1"})
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
			reply = wire.Append(nil, &wirepb.HeartbeatAck{Count: beat.GetCount()})
		}
		m.mu.Unlock()
	}
}
