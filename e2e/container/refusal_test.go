package container

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// What is wrong is said at the start, all of it, a line each; and the process ends with 2.
func TestMisconfiguration(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spec
		want []string // how each line begins
	}{
		"worker": {
			spec{image: workerImage, env: env{
				"WORKER_CAPACTIY": "5", "WORKER_FAILURE_MIN": "30s", "HEARTBEAT_INTERVAL": "soon",
			}},
			[]string{
				`CONNECTION_SWAP_HEARTBEAT_INTERVAL="soon": not a duration; `,
				`CONNECTION_SWAP_WORKER_CAPACTIY="5": no such variable; did you mean CONNECTION_SWAP_WORKER_CAPACITY?`,
				`CONNECTION_SWAP_WORKER_FAILURE_MIN="30s": above CONNECTION_SWAP_WORKER_FAILURE_MAX="25s"; `,
			},
		},
		"director": {
			spec{image: directorImage, env: env{"DIRECTOR_USER_PORT": "61000", "LOG_LEVEL": "loud"}},
			[]string{
				`CONNECTION_SWAP_DIRECTOR_USER_PORT="61000": no such variable; did you mean CONNECTION_SWAP_DIRECTOR_USER_ADDR?`,
				`CONNECTION_SWAP_LOG_LEVEL="loud": unknown; give debug, info, warn or error`,
			},
		},
		"address of another machine": {
			spec{image: directorImage, env: env{"DIRECTOR_USER_ADDR": "192.0.2.1:61000"}},
			[]string{`CONNECTION_SWAP_DIRECTOR_USER_ADDR="192.0.2.1:61000": cannot be bound: `},
		},
		"client": {
			spec{image: clientImage, args: []string{"generate"}, env: env{"CLIENT_OUTPUT": "xml"}},
			[]string{`CONNECTION_SWAP_CLIENT_OUTPUT="xml": unknown; give text, log or json`},
		},
		"no certificates": {
			spec{image: workerImage, files: map[string]string{}},
			[]string{
				`CONNECTION_SWAP_TLS_DIR="/certs": ca.pem is missing; `,
				`CONNECTION_SWAP_TLS_DIR="/certs": worker.pem is missing; `,
				`CONNECTION_SWAP_TLS_DIR="/certs": worker-key.pem is missing; `,
			},
		},
		"a client's certificate": {
			spec{image: workerImage, files: material(identity.Worker, identity.Client)},
			[]string{`CONNECTION_SWAP_TLS_DIR="/certs": worker.pem is a certificate for ["client.connswap"], not for worker.connswap; `},
		},
		"an operator with a client's certificate": {
			spec{image: clientImage, args: []string{"status"}, files: material(identity.Operator, identity.Client)},
			[]string{`CONNECTION_SWAP_TLS_DIR="/certs": operator.pem is a certificate for ["client.connswap"], not for operator.connswap; `},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := empty(t)
			test.name = "misconfigured"
			if test.image == workerImage {
				test.ports = []string{workerStatus}
			}
			n, err := c.start(t.Context(), test.spec)
			if err != nil {
				t.Fatal(err)
			}
			code := n.exit(t)
			stdout, stderr, err := n.output(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			if code != 2 || stdout != "" || len(lines) != len(test.want) {
				t.Fatalf("exit code %d, want 2; wrote %q, want %d lines; and %q", code, stderr, len(test.want), stdout)
			}
			for i, want := range test.want {
				if said := strings.TrimPrefix(lines[i], "client: "); !strings.HasPrefix(said, want) {
					t.Errorf("said %q\nwant %q", said, want)
				}
			}
		})
	}
}

// Nobody gets in with the certificate of another role, or without one. The images do not try, so this test does.
func TestRoles(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	for _, role := range []identity.Role{identity.Client, ""} {
		if said := c.register(t, role, 1, wire.NewestPeerVersion); !strings.Contains(said, "unauthorized") && !strings.Contains(said, "certificate") {
			t.Errorf("registering a worker with the certificate of %q: %s", role, said)
		}
	}
	if said := c.register(t, identity.Worker, 1, wire.NewestPeerVersion); said != welcome {
		t.Errorf("registering a worker with a worker's certificate: %s", said)
	}
	for _, role := range []identity.Role{identity.Worker, identity.Client, ""} {
		if said := c.attach(t, role); !strings.Contains(said, "certificate") {
			t.Errorf("a link with the certificate of %q: %s", role, said)
		}
	}
	if said := c.attach(t, identity.Director); said != welcome {
		t.Errorf("a link with a director's certificate: %s", said)
	}
}

// register tries to register as a worker that speaks these versions, and returns what came of it.
func (c *cluster) register(t *testing.T, role identity.Role, oldest, newest uint32) string {
	t.Helper()
	return c.registerAt(t, c.director, role, oldest, newest)
}

func (c *cluster) registerAt(t *testing.T, director *node, role identity.Role, oldest, newest uint32) string {
	t.Helper()
	return knock[*wirepb.Registered](t, door{
		node: director, port: directorMgmt, config: quicnet.MgmtConfig(10 * time.Second),
		tls: identity.ClientTLS(c.source(t, role), wire.ALPNMgmt, identity.Director),
	}, &wirepb.Register{
		OldestVersion: oldest, Version: newest,
		Worker: "worker-x", Instance: "1", UserAddr: ":1", MgmtAddr: ":2", Capacity: 1,
		Models: []*wirepb.Model{{Name: "markov", Fingerprint: "x"}},
	})
}

// attach tries to open a link to worker-a and returns what came of it.
func (c *cluster) attach(t *testing.T, role identity.Role) string {
	t.Helper()
	config := quicnet.LinkConfig(0)
	config.HandshakeIdleTimeout = 10 * time.Second
	return knock[*wirepb.LinkWelcome](t, door{
		node: c.workers["worker-a"], port: workerUser, config: config,
		tls: identity.ClientTLS(c.source(t, role), wire.ALPNLink, identity.Worker),
	}, &wirepb.LinkHello{
		Version: wire.NewestPeerVersion, DirectorId: "x", DirectorInstance: "x", ProgressIntervalMs: 1000, TokenStreams: 1,
		Tether: "0123456789abcdef",
	})
}

// door is a port of a node, and how to come to it.
type door struct {
	node   *node
	port   string
	tls    *tls.Config
	config *quic.Config
}

const welcome = "welcome"

// knock says hello and returns welcome if a Reply comes, else why not.
func knock[Reply wire.Message](t *testing.T, d door, hello wire.Message) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	addr, err := d.node.published(ctx, d.port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := quicnet.Dial(ctx, quicnet.OS{}, addr, d.tls, d.config)
	if err != nil {
		return err.Error()
	}
	defer conn.Close(wire.QUICOk, "") //nolint:errcheck // the answer is here
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err.Error()
	}
	if _, err := stream.Write(wire.Append(nil, hello)); err != nil {
		return err.Error()
	}
	if _, err := wire.ReadMessage[Reply](wire.NewReader(stream, wire.MaxControl)); err != nil {
		return err.Error()
	}
	return welcome
}

// source is the certificate of a role, or none for the empty one.
func (c *cluster) source(t *testing.T, role identity.Role) identity.Source {
	t.Helper()
	of := role
	if role == "" {
		of = identity.Client
	}
	source, err := identity.FromDir(c.certs, of)
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		return source
	}
	roots, err := source.Roots()
	if err != nil {
		t.Fatal(err)
	}
	return identity.Static(nil, roots)
}
