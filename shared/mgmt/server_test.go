package mgmt_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// serve runs a Server on the host server:61001 in a bubble and calls test with a connection to it.
func serve(t *testing.T, srv mgmt.Server, test func(t *testing.T, client *simtest.Host, conn *quicnet.Conn, src identity.Source)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sources, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		defer n.Close()
		server, client := n.Host("server"), n.Host("client")
		accept := map[string][]identity.Role{wire.ALPNMgmt: {identity.Operator}}
		l, err := quicnet.Listen(server, ":61001", identity.ServerTLS(sources[identity.Director], []string{wire.ALPNMgmt}, accept),
			quicnet.MgmtConfig(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ctx, l) }()

		tlsConf := identity.ClientTLS(sources[identity.Operator], wire.ALPNMgmt, identity.Director)
		conn, err := quicnet.Dial(t.Context(), client, "server:61001", tlsConf, quicnet.MgmtConfig(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		test(t, client, conn, sources[identity.Operator])
		stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		conn.Close(wire.QUICOk, "") //nolint:errcheck // it is closed already
	})
}

func health() *wirepb.HealthReply {
	return &wirepb.HealthReply{Role: "director", Name: "one", Ready: true}
}

// say sends bytes on a new stream and returns its reader.
func say(t *testing.T, conn *quicnet.Conn, b []byte) *wire.Reader {
	t.Helper()
	stream, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(b); err != nil {
		t.Fatal(err)
	}
	return wire.NewReader(stream, wire.MaxControl)
}

func TestHealth(t *testing.T) {
	serve(t, mgmt.Server{Health: health}, func(t *testing.T, client *simtest.Host, conn *quicnet.Conn, src identity.Source) {
		for range 20 { // streams are given back: there are 8 at once
			reply, err := wire.ReadMessage[*wirepb.HealthReply](say(t, conn, wire.Append(nil, &wirepb.HealthRequest{})))
			if err != nil || reply.GetName() != "one" || !reply.GetReady() {
				t.Fatalf("got %v, %v", reply, err)
			}
		}
		reply, err := mgmt.Health(t.Context(), client, "server:61001", identity.ClientTLS(src, wire.ALPNMgmt, identity.Director))
		if err != nil || reply.GetName() != "one" {
			t.Errorf("got %v, %v", reply, err)
		}
	})
}

func TestHealthOfNobody(t *testing.T) {
	serve(t, mgmt.Server{Health: health}, func(t *testing.T, client *simtest.Host, _ *quicnet.Conn, src identity.Source) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, addr := range []string{"client:61001", "nowhere:61001"} {
			if reply, err := mgmt.Health(ctx, client, addr, identity.ClientTLS(src, wire.ALPNMgmt, identity.Director)); err == nil {
				t.Errorf("%s: got %v", addr, reply)
			}
		}
	})
}

func TestFirstFrames(t *testing.T) {
	boom := wire.Errorf(wire.CodeLabelInUse, "taken")
	registering := mgmt.Server{Health: health, Stream: func(_ context.Context, _ mgmt.Stream, first wire.Message) error {
		if _, ok := first.(*wirepb.Register); ok {
			return boom
		}
		return errors.New("defect")
	}}
	cases := map[string]struct {
		srv   mgmt.Server
		bytes []byte
		want  wire.Code // or a reset, if empty
	}{
		"refused by the role":  {registering, wire.Append(nil, &wirepb.Register{}), wire.CodeLabelInUse},
		"the role fails":       {registering, wire.Append(nil, &wirepb.Heartbeat{}), ""},
		"no place for it":      {mgmt.Server{Health: health}, wire.Append(nil, &wirepb.Register{}), wire.CodeProtocol},
		"an unknown type":      {registering, []byte{1, 63}, wire.CodeProtocol},
		"malformed":            {registering, append([]byte{3}, 0x30, 0xff, 0xff), wire.CodeProtocol},
		"too large":            {registering, []byte{0xc0, 0, 0, 0, 1, 0, 0, 0}, ""},
		"a frame half arrived": {registering, []byte{9, 1}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			serve(t, c.srv, func(t *testing.T, _ *simtest.Host, conn *quicnet.Conn, _ identity.Source) {
				start := time.Now()
				_, err := wire.ReadMessage[*wirepb.Registered](say(t, conn, c.bytes))
				var refusal *wire.Error
				if errors.As(err, &refusal) != (c.want != "") || refusal != nil && refusal.Code != c.want {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if took := time.Since(start); took > 6*time.Second {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

func TestServeEndsWhenItsSocketDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n := simtest.New(1, simtest.Options{})
		defer n.Close()
		l, err := quicnet.Listen(n.Host("server"), ":61001", identity.ServerTLS(sources[identity.Director], []string{wire.ALPNMgmt}, nil),
			quicnet.MgmtConfig(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, n.Host("server").Kill)
		if err := (&mgmt.Server{Health: health}).Serve(t.Context(), l); err == nil {
			t.Error("no error")
		}
	})
}
