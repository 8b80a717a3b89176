package connswap_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestDial(t *testing.T) {
	unauthorized := wire.Errorf(wire.CodeUnauthorized, "nobody")
	greeting := func(m wire.Message) fakedirector.Director { return fakedirector.Director{Welcome: m} }
	for name, test := range map[string]struct {
		director fakedirector.Director
		want     error
	}{
		"welcome":        {fakedirector.Director{}, nil},
		"refused":        {greeting(unauthorized.Proto()), unauthorized},
		"other version":  {greeting(&wirepb.Welcome{Version: wire.Version + 1, ConnectionId: "conn-1"}), &connswap.Error{Code: connswap.CodeVersion}},
		"no id":          {greeting(&wirepb.Welcome{Version: wire.Version}), connswap.ErrFrame},
		"wrong frame":    {greeting(&wirepb.Heartbeat{}), connswap.ErrFrame},
		"other protocol": {fakedirector.Director{ALPN: "connswap/2"}, &connswap.Error{Code: connswap.CodeVersion}},
		"closed": {fakedirector.Director{Greet: func(conn *quic.Conn, _ *quic.Stream) {
			_ = conn.CloseWithError(wire.QUICRefused, "limit_exceeded: too many clients")
		}}, wire.Errorf(wire.CodeLimit, "too many clients")},
		"silent": {fakedirector.Director{Greet: func(*quic.Conn, *quic.Stream) {}}, &connswap.Error{Code: connswap.CodeLost}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				t.start(test.director)
				start := time.Now()
				conn, err := connswap.Dial(t.Context(), "director:61000", t.options())
				if !errors.Is(err, test.want) || (conn == nil) != (test.want != nil) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if after := time.Since(start); after > 10*time.Second {
					t.Errorf("after %v", after)
				}
				if conn == nil {
					return
				}
				if conn.ID() != "conn-1" || conn.Director() != "director-1" || conn.RemoteAddr() == "" {
					t.Errorf("connected as %q to %q at %q", conn.ID(), conn.Director(), conn.RemoteAddr())
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestDialWhereNobodyIs(t *testing.T) {
	inWorld(t, func(t *world) {
		for target, want := range map[string]connswap.Code{
			"director:61000": connswap.CodeLost, "nowhere:61000": connswap.CodeLost, "nonsense": connswap.CodeLost,
		} {
			if _, err := connswap.Dial(t.Context(), target, t.options()); !errors.Is(err, &connswap.Error{Code: want}) {
				t.Errorf("%s: got %v", target, err)
			}
		}
		t.director.Crash()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := connswap.Dial(ctx, "director:61000", t.options()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// A name that stands for several directors leads to the first that is there.
func TestDialTriesEveryAddress(t *testing.T) {
	inWorld(t, func(t *world) {
		busy := t.net.Host("busy")
		refusing := fakedirector.Director{
			Network: busy, Addr: ":61000", TLS: t.ids[identity.Director],
			Welcome: wire.Errorf(wire.CodeLimit, "full").Proto(),
		}
		refusing.Start(t)
		t.start(fakedirector.Director{})
		t.net.Alias("directors", t.net.Host("down"), busy, t.director)
		conn, err := connswap.Dial(t.Context(), "directors:61000", t.options())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // not under test
		if host := t.director.IP().String() + ":61000"; conn.RemoteAddr() != host {
			t.Errorf("connected to %s, want %s", conn.RemoteAddr(), host)
		}
		t.net.Alias("directors", t.net.Host("down"), busy)
		_, err = connswap.Dial(t.Context(), "directors:61000", t.options())
		if !errors.Is(err, &connswap.Error{Code: connswap.CodeLimit}) || !errors.Is(err, &connswap.Error{Code: connswap.CodeLost}) {
			t.Errorf("got %v", err)
		}
	})
}

// Only a director's certificate, from the client's authority, makes a director.
func TestDialChecksTheDirector(t *testing.T) {
	inWorld(t, func(t *world) {
		for name, source := range impostors(t) {
			host := t.net.Host(name)
			d := fakedirector.Director{Network: host, Addr: ":61000", TLS: source}
			d.Start(t)
			_, err := connswap.Dial(t.Context(), name+":61000", t.options())
			if !errors.Is(err, &connswap.Error{Code: connswap.CodeUnauthorized}) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if _, err := connswap.Dial(t.Context(), "director:61000", connswap.Options{}); err == nil {
			t.Error("dialled without any roots")
		}
	})
}

// impostors are nodes that must not pass for a director.
func impostors(t *world) map[string]identity.Source {
	others, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]identity.Source{"worker": t.ids[identity.Worker], "stranger": others[identity.Director]}
}

// Addresses where nothing answers, not even with a refusal, cost a quarter of a second each.
func TestDialPassesDeadAddresses(t *testing.T) {
	inWorld(t, func(t *world) {
		first, second := t.net.Host("first"), t.net.Host("second")
		first.Crash()
		second.Crash()
		t.start(fakedirector.Director{})
		t.net.Alias("directors", first, second, t.director)
		start := time.Now()
		conn, err := connswap.Dial(t.Context(), "directors:61000", t.options())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // not under test
		if after := time.Since(start); after > 600*time.Millisecond {
			t.Errorf("connected after %v", after)
		}

		t.net.Alias("directors", first, second)
		_, err = connswap.Dial(t.Context(), "directors:61000", t.options())
		if !errors.Is(err, &connswap.Error{Code: connswap.CodeLost}) {
			t.Fatalf("got %v", err)
		}
		for _, addr := range []string{first.IP().String(), second.IP().String()} {
			if strings.Count(err.Error(), addr) != 1 {
				t.Errorf("%s does not stand once in %q", addr, err)
			}
		}
	})
}

// Where the caller gives up, the error still says what was wrong with each address by then.
func TestDialGivenUpNamesItsAddresses(t *testing.T) {
	inWorld(t, func(t *world) {
		dead := t.net.Host("dead")
		dead.Crash()
		t.net.Alias("directors", dead, t.net.Host("down"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := connswap.Dial(ctx, "directors:61000", t.options())
		want := fmt.Sprintf("%s:61000: context deadline exceeded; %s:61000: connection_lost: no connection: connection refused: nothing listens there",
			dead.IP(), t.net.Host("down").IP())
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// A director that asks for certificates says of one that is not good what is wrong with it, and so does the client.
func TestDialWithoutTheRightCertificate(t *testing.T) {
	inWorld(t, func(t *world) {
		others, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		old, err := identity.NewDevelopment(time.Now().AddDate(-20, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		roots, err := t.ids[identity.Client].Roots()
		if err != nil {
			t.Fatal(err)
		}
		with := func(certs identity.Source) identity.Source { // trusts the director all the same
			cert, err := certs.Certificate()
			if err != nil {
				t.Fatal(err)
			}
			return identity.Static(cert, roots)
		}
		t.start(fakedirector.Director{Clients: []identity.Role{identity.Client}})
		d := fakedirector.Director{Network: t.net.Host("old"), Addr: ":61000", TLS: old[identity.Director]}
		d.Start(t)
		for name, test := range map[string]struct {
			target string
			tls    identity.Source
			want   string
		}{
			"good":         {"director", t.ids[identity.Client], ""},
			"none":         {"director", identity.Static(nil, roots), "the director asks for a certificate"},
			"wrong role":   {"director", t.ids[identity.Operator], "one of the right role"},
			"a stranger":   {"director", with(others[identity.Client]), "refuses this side's certificate"},
			"expired":      {"director", with(old[identity.Client]), "refuses this side's certificate"},
			"old director": {"old", old[identity.Client], "the director's certificate has expired"},
		} {
			opts := t.options()
			opts.TLS = test.tls
			conn, err := connswap.Dial(t.Context(), test.target+":61000", opts)
			if test.want == "" {
				if err != nil {
					t.Errorf("%s: got %v", name, err)
				} else if err := conn.Close(); err != nil {
					t.Error(err)
				}
				continue
			}
			if !errors.Is(err, &connswap.Error{Code: connswap.CodeUnauthorized}) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %v, want … %s", name, err, test.want)
			}
		}
	})
}

// A director whose welcome comes after another's is left, and told so.
func TestDialClosesWhatComesTooLate(t *testing.T) {
	inWorld(t, func(t *world) {
		slow := fakedirector.Director{
			Network: t.net.Host("slow"), Addr: ":61000", TLS: t.ids[identity.Director],
			Greet: func(conn *quic.Conn, _ *quic.Stream) { <-conn.Context().Done() },
		}
		slow.Start(t)
		quick := t.start(fakedirector.Director{})
		t.net.Alias("directors", t.net.Host("slow"), t.director)
		conn, err := connswap.Dial(t.Context(), "directors:61000", t.options())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // not under test
		if host := t.director.IP().String() + ":61000"; conn.RemoteAddr() != host {
			t.Errorf("connected to %s, want %s", conn.RemoteAddr(), host)
		}
		late := <-slow.Conns
		time.Sleep(10 * delay)
		var closed *quic.ApplicationError
		if err := context.Cause(late.Context()); !errors.As(err, &closed) || !closed.Remote || closed.ErrorCode != wire.QUICOk {
			t.Errorf("the slow one's connection ended with %v", err)
		}
		if context.Cause((<-quick.Conns).Context()) != nil {
			t.Error("the quick one's connection has ended")
		}
	})
}
