package quicnet_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
)

// TestRefusalsAreReported dials with a certificate of the wrong role, with none, and with a good one.
func TestRefusalsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		defer n.Close()
		type refusal struct {
			peer   netip.AddrPort
			reason string
		}
		told := make(chan refusal, 10)
		conf := quicnet.ReportRefusals(quicnet.MgmtConfig(time.Minute), func(peer netip.AddrPort, reason string) { told <- refusal{peer, reason} })
		accept := map[string][]identity.Role{wire.ALPNMgmt: {identity.Operator}}
		l, err := quicnet.Listen(n.Host("server"), ":61001", identity.ServerTLS(sources[identity.Director], []string{wire.ALPNMgmt}, accept), conf)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // nothing depends on it
		roots, err := sources[identity.Client].Roots()
		if err != nil {
			t.Fatal(err)
		}
		client := n.Host("client")
		for _, c := range []struct {
			source identity.Source
			reason string
		}{
			{sources[identity.Client], "tls: bad certificate"},
			{identity.Static(nil, roots), "tls: certificate required"},
			{sources[identity.Operator], ""},
		} {
			tls := identity.ClientTLS(c.source, wire.ALPNMgmt, identity.Director)
			conn, err := quicnet.Dial(t.Context(), client, "server:61001", tls, quicnet.MgmtConfig(time.Minute))
			time.Sleep(time.Second) // in the bubble: the server has judged
			if err == nil {
				conn.Close(0, "") //nolint:errcheck // it may be closed already
			}
			select {
			case r := <-told:
				if r.reason != c.reason || r.peer.Addr() != client.IP() {
					t.Errorf("told %+v, want %q", r, c.reason)
				}
			default:
				if c.reason != "" {
					t.Errorf("nobody is told of %q", c.reason)
				}
			}
		}
	})
}
