package identity_test

import (
	"crypto/tls"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/identity"
)

const (
	user = "connswap/1"      // for anyone
	link = "connswap-link/1" // for directors
	mgmt = "connswap-mgmt/1" // for workers and operators
)

func port(src identity.Source) *tls.Config {
	return identity.ServerTLS(src, []string{user, link, mgmt}, map[string][]identity.Role{
		link: {identity.Director},
		mgmt: {identity.Worker, identity.Operator},
	})
}

// outcome is what both ends of a handshake see. In TLS 1.3 a client's handshake is complete before the server
// has seen its certificate, so its error may be that of the first read.
type outcome struct {
	client, server           error
	clientState, serverState tls.ConnectionState
}

func handshake(t *testing.T, client, server *tls.Config) outcome {
	t.Helper()
	a, b := pipe()
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer hangUp(b)
		conn := tls.Server(b, server)
		if out.server = conn.Handshake(); out.server != nil {
			return
		}
		out.serverState = conn.ConnectionState()
		if _, out.server = conn.Write([]byte("x")); out.server == nil {
			_, out.server = io.Copy(io.Discard, conn) // until the client closes, or its alert
		}
	}()
	conn := tls.Client(a, client)
	if out.client = conn.Handshake(); out.client == nil {
		out.clientState = conn.ConnectionState()
		if _, out.client = io.ReadFull(conn, make([]byte, 1)); out.client == nil {
			out.client = conn.Close()
		}
	}
	hangUp(a)
	<-done
	return out
}

func hangUp(conn io.Closer) { _ = conn.Close() } // a pipe's end has no errors

func development(t *testing.T) map[identity.Role]identity.Source {
	t.Helper()
	sources, err := identity.NewDevelopment(time.Now())
	require.NoError(t, err)
	return sources
}

func anonymous(t *testing.T, sources map[identity.Role]identity.Source) identity.Source {
	t.Helper()
	roots, err := sources[identity.Client].Roots()
	require.NoError(t, err)
	return identity.Static(nil, roots)
}

func TestRolesMayDoTheirOwn(t *testing.T) {
	sources := development(t)
	all := []identity.Role{identity.Director, identity.Worker, identity.Client, identity.Operator}
	allowed := map[string][]identity.Role{
		user: all,
		link: {identity.Director},
		mgmt: {identity.Worker, identity.Operator},
	}
	for proto, want := range allowed {
		for _, role := range all {
			t.Run(proto+" "+string(role), func(t *testing.T) {
				out := handshake(t, identity.ClientTLS(sources[role], proto, identity.Director), port(sources[identity.Director]))
				if !slices.Contains(want, role) {
					require.ErrorIs(t, out.server, identity.ErrRole)
					require.ErrorContains(t, out.server, "the peer is a "+string(role)+", "+proto+" is for ")
					require.EqualError(t, out.client, "remote error: tls: bad certificate")
					return
				}
				require.NoError(t, out.server)
				require.NoError(t, out.client)
				require.Equal(t, proto, out.serverState.NegotiatedProtocol)
				found, ok := identity.PeerRole(out.clientState)
				require.True(t, ok)
				require.Equal(t, identity.Director, found)
				found, ok = identity.PeerRole(out.serverState)
				require.Equal(t, proto != user, ok, "certificates are asked for where they matter")
				if ok {
					require.Equal(t, role, found)
				}
			})
		}
	}
}

func TestWithoutCertificate(t *testing.T) {
	sources := development(t)
	nobody := anonymous(t, sources)

	out := handshake(t, identity.ClientTLS(nobody, user, identity.Director), port(sources[identity.Director]))
	require.NoError(t, out.client)
	require.NoError(t, out.server)
	_, ok := identity.PeerRole(out.serverState)
	require.False(t, ok)

	for _, proto := range []string{link, mgmt} {
		out = handshake(t, identity.ClientTLS(nobody, proto, identity.Director), port(sources[identity.Director]))
		require.EqualError(t, out.client, "remote error: tls: certificate required")
		require.EqualError(t, out.server, "tls: client didn't provide a certificate")
	}

	out = handshake(t, identity.ClientTLS(nobody, user, identity.Director), port(nobody))
	require.EqualError(t, out.server, "identity: this node has no certificate to serve with")
	require.Error(t, out.client)
}

func TestStrangers(t *testing.T) {
	ours, theirs := development(t), development(t)
	worker, director := ours[identity.Worker], ours[identity.Director]

	t.Run("a server of another authority", func(t *testing.T) {
		out := handshake(t, identity.ClientTLS(worker, mgmt, identity.Director), port(theirs[identity.Director]))
		require.ErrorContains(t, out.client, "identity: the peer's certificate: x509: certificate signed by unknown authority")
		require.ErrorContains(t, out.server, "remote error: tls:")
	})
	t.Run("a server of another role", func(t *testing.T) {
		out := handshake(t, identity.ClientTLS(director, user, identity.Director), port(worker))
		require.ErrorIs(t, out.client, identity.ErrRole)
		require.ErrorContains(t, out.client, "the peer's certificate is for worker.connswap, want that of a director")
	})
	t.Run("a client's certificate on a server", func(t *testing.T) {
		out := handshake(t, identity.ClientTLS(director, user, identity.Client), port(ours[identity.Client]))
		require.ErrorContains(t, out.client, "certificate specifies an incompatible key usage")
	})
	t.Run("a worker of another authority", func(t *testing.T) {
		roots, err := director.Roots()
		require.NoError(t, err)
		cert, err := theirs[identity.Worker].Certificate()
		require.NoError(t, err)
		out := handshake(t, identity.ClientTLS(identity.Static(cert, roots), mgmt, identity.Director), port(director))
		require.ErrorContains(t, out.server, "certificate signed by unknown authority")
		require.ErrorContains(t, out.client, "remote error: tls:")
	})
	t.Run("no roots", func(t *testing.T) {
		out := handshake(t, identity.ClientTLS(identity.Static(nil, nil), user, identity.Director), port(director))
		require.ErrorContains(t, out.client, "no roots")
	})
}

func TestProtocols(t *testing.T) {
	sources := development(t)
	worker, server := sources[identity.Worker], port(sources[identity.Director])

	t.Run("unknown", func(t *testing.T) {
		out := handshake(t, identity.ClientTLS(worker, "connswap/0", identity.Director), server)
		require.EqualError(t, out.client, "remote error: tls: no application protocol")
		require.ErrorContains(t, out.server, `client requested unsupported application protocols`)
	})
	t.Run("none", func(t *testing.T) {
		cfg := identity.ClientTLS(worker, "", identity.Director)
		cfg.NextProtos = nil
		out := handshake(t, cfg, server)
		require.ErrorContains(t, out.server, "identity: the peer has to name one of the protocols connswap/1, connswap-link/1, connswap-mgmt/1")
		require.Error(t, out.client)
	})
	t.Run("several", func(t *testing.T) {
		cfg := identity.ClientTLS(worker, link, identity.Director)
		cfg.NextProtos = []string{mgmt, link}
		out := handshake(t, cfg, server)
		require.ErrorIs(t, out.server, identity.ErrRole, "link is the server's choice, and not for workers")
	})
	t.Run("ignored by the server", func(t *testing.T) {
		cert, err := sources[identity.Director].Certificate()
		require.NoError(t, err)
		out := handshake(t, identity.ClientTLS(worker, mgmt, identity.Director), &tls.Config{Certificates: []tls.Certificate{*cert}})
		require.ErrorContains(t, out.client, "identity: the peer does not speak connswap-mgmt/1")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		cfg := identity.ClientTLS(worker, mgmt, identity.Director)
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		out := handshake(t, cfg, server)
		require.ErrorContains(t, out.client, "protocol version not supported")
	})
}

// A resumed session has to pass the same checks: there the certificates come out of the ticket.
func TestResumption(t *testing.T) {
	sources := development(t)
	server := port(sources[identity.Director])
	client := identity.ClientTLS(sources[identity.Worker], mgmt, identity.Director)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	require.NoError(t, handshake(t, client, server).client)

	out := handshake(t, client, server)
	require.NoError(t, out.server)
	require.True(t, out.serverState.DidResume)
	role, ok := identity.PeerRole(out.serverState)
	require.True(t, ok)
	require.Equal(t, identity.Worker, role)

	client.NextProtos = []string{link}
	out = handshake(t, client, server)
	require.ErrorIs(t, out.server, identity.ErrRole)
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources := development(t)
		nobody := anonymous(t, sources)
		server := port(sources[identity.Director])
		time.Sleep(364 * 24 * time.Hour)
		require.NoError(t, handshake(t, identity.ClientTLS(nobody, user, identity.Director), server).client)
		time.Sleep(2 * 24 * time.Hour)
		out := handshake(t, identity.ClientTLS(nobody, user, identity.Director), server)
		require.ErrorContains(t, out.client, "certificate has expired or is not yet valid")
	})
}

func TestServerName(t *testing.T) {
	require.Equal(t, "director.connswap", identity.Director.ServerName())
	require.Equal(t, "director.connswap", identity.ClientTLS(nil, user, identity.Director).ServerName)
}
