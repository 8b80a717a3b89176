package fakedirector

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// mgmtIdle is how long an operator may be silent.
const mgmtIdle = 8 * time.Second

// Mgmt is the MGMT port of a node. It lets in who has an operator's certificate. Set its fields before Start.
type Mgmt struct {
	Network quicnet.Network
	Addr    string // to listen on
	TLS     identity.Source
	ALPN    string // wire.ALPNMgmt if empty

	// Operate is called for each request. When it returns a *wire.Error the operator gets that, then the stream
	// ends; with any other error it is reset.
	Operate func(o *Operation) error
}

// Start serves until the test ends.
func (m *Mgmt) Start(t testing.TB) *Mgmt {
	t.Helper()
	if m.ALPN == "" {
		m.ALPN = wire.ALPNMgmt
	}
	accept := map[string][]identity.Role{m.ALPN: {identity.Operator}}
	tls := identity.ServerTLS(m.TLS, []string{m.ALPN}, accept)
	l, err := quicnet.Listen(m.Network, m.Addr, tls, quicnet.MgmtConfig(mgmtIdle))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = (&mgmt.Server{Stream: m.serve}).Serve(ctx, l) // a test that kills the host knows
	}()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	return m
}

func (m *Mgmt) serve(_ context.Context, s mgmt.Stream, first wire.Message) error {
	request, ok := first.(*wirepb.Operate)
	if !ok {
		return errors.New("not a request")
	}
	return m.Operate(&Operation{Stream: s, Request: request})
}

// Operation is an operator's request.
type Operation struct {
	mgmt.Stream
	Request *wirepb.Operate
}

// Send sends messages. What cannot be sent the operator notices.
func (o *Operation) Send(messages ...wire.Message) {
	for _, m := range messages {
		_, _ = o.Write(wire.Append(nil, m))
	}
}

// Progress sends how far a drain or a rebalancing has come.
func (o *Operation) Progress(moves *wirepb.MoveReport) { o.Send(&wirepb.Operated{Moves: moves}) }

// Result sends the last message.
func (o *Operation) Result(result *wirepb.Operated) error {
	result.Result = true
	o.Send(result)
	return nil
}
