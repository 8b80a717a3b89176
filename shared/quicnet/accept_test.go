package quicnet_test

import (
	"context"
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
)

// TestStuckAcceptLoop has nobody come back for the next connection.
func TestStuckAcceptLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n := simtest.New(1, simtest.Options{})
		defer n.Close()
		l, err := quicnet.Listen(n.Host("server"), ":1",
			identity.ServerTLS(sources[identity.Director], []string{wire.ALPNMgmt}, nil), quicnet.MgmtConfig(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // the test is over
		conf := identity.ClientTLS(sources[identity.Operator], wire.ALPNMgmt, identity.Director)
		for range 2 {
			connect(t, n.Host("client"), conf)
			if _, err := l.Accept(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := l.Accepting(); err != nil {
				t.Errorf("at once: %v", err)
			}
			time.Sleep(time.Minute)
			if l.Accepting() == nil {
				t.Error("nobody has come back for a minute, and it is fine")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.Accept(ctx); err == nil || l.Accepting() != nil {
			t.Errorf("it ends, and is not stuck: %v, %v", err, l.Accepting())
		}
	})
}

// connect opens a connection from a host to server:1.
func connect(t *testing.T, from *simtest.Host, conf *tls.Config) {
	t.Helper()
	conn, err := quicnet.Dial(t.Context(), from, "server:1", conf, quicnet.MgmtConfig(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(wire.QUICOk, "") }) //nolint:errcheck // the test is over
}
