package container

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	mobynetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

// env are environment variables, their names without the prefix that all have.
type env map[string]string

// setup says how a cluster differs from the ordinary one.
type setup struct {
	director env
	workers  env                         // of both
	host     func(*container.HostConfig) // of both workers
	health   bool                        // with the images' health checks, which cost a process every two seconds
}

// cluster is a director, worker-a and worker-b on a network of their own.
type cluster struct {
	setup    setup
	network  *testcontainers.DockerNetwork
	certs    string
	director *node
	workers  map[string]*node
	witness  *witness

	ctx context.Context // ends before the containers do

	mu    sync.Mutex
	nodes []*node // all, clients included
	run   sync.WaitGroup
}

const (
	directorUser   = "61000/udp"
	directorHTTP   = "61000/tcp"
	directorMgmt   = "61001/udp"
	directorStatus = "61001/tcp"
	workerUser     = "62001/udp"
	workerStatus   = "63001/tcp"
)

// up starts a cluster and waits until both workers serve. The end of the test removes it.
func up(t *testing.T, s setup) *cluster {
	t.Helper()
	c := empty(t)
	c.setup = s
	c.startRoles(t)
	addr, err := c.director.published(t.Context(), directorStatus)
	if err != nil {
		t.Fatal(err)
	}
	c.witness = &witness{addr: addr}
	c.run.Go(func() { c.witness.watch(c.ctx) })
	c.serving(t, "worker-a", "worker-b")
	return c
}

// empty is a cluster without director and workers: a network, and certificates.
func empty(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{certs: t.TempDir(), workers: make(map[string]*node)}
	var stop context.CancelFunc
	c.ctx, stop = context.WithCancel(t.Context())
	t.Cleanup(func() {
		stop()
		c.run.Wait()
		c.down(t)
	})
	if _, err := identity.EnsureDevelopment(c.certs, time.Now()); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.network, err = network.New(t.Context(), network.WithLabels(map[string]string{label: t.Name()})); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) startRoles(t *testing.T) {
	t.Helper()
	director := spec{image: directorImage, name: "director", env: env{
		"LOG_FORMAT": "json", "DIRECTOR_ID": "director", "HEARTBEAT_INTERVAL": "1s", "MGMT_PLAIN_STATUS": "true",
	}, ports: []string{directorStatus, directorMgmt, directorUser, directorHTTP}}
	maps.Copy(director.env, c.setup.director)
	specs := []spec{director}
	for _, name := range []string{"worker-a", "worker-b"} {
		specs = append(specs, c.worker(name, workerImage))
	}
	nodes, errs := make([]*node, len(specs)), make([]error, len(specs))
	var starting sync.WaitGroup
	for i, s := range specs {
		starting.Go(func() { nodes[i], errs[i] = c.start(t.Context(), s) })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	c.director = nodes[0]
	for _, n := range nodes[1:] {
		c.workers[n.name] = n
	}
}

// worker is what a worker of the cluster is made from.
func (c *cluster) worker(name, image string) spec {
	s := spec{image: image, name: name, ports: []string{workerStatus, workerUser}, host: c.setup.host, env: env{
		"LOG_FORMAT": "json", "WORKER_LABEL": name, "DIRECTOR_MGMT_ADDR": "director:61001", "HEARTBEAT_INTERVAL": "1s",
		"WORKER_TOKEN_INTERVAL": "60ms", "MGMT_PLAIN_STATUS": "true",
	}}
	maps.Copy(s.env, c.setup.workers)
	return s
}

// spec is what a container is made from.
type spec struct {
	image string
	name  string // on the network
	args  []string
	env   env
	files map[string]string // in /certs: name there, name in the cluster's directory; nil for all that the images need
	ports []string          // published on the loopback address
	host  func(*container.HostConfig)
}

// start makes a container and starts it.
func (c *cluster) start(ctx context.Context, s spec) (*node, error) {
	options := []testcontainers.ContainerCustomizer{
		testcontainers.WithLabels(map[string]string{label: s.name}),
		testcontainers.WithEnv(variables(s.env)),
		testcontainers.WithFiles(c.files(s)...),
		testcontainers.WithExposedPorts(s.ports...),
		testcontainers.WithCmd(s.args...),
		network.WithNetwork([]string{s.name}, c.network),
		testcontainers.WithConfigModifier(func(config *container.Config) {
			if !c.setup.health {
				config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
			}
		}),
		testcontainers.WithHostConfigModifier(func(host *container.HostConfig) {
			// As little as in the Compose file.
			host.CapDrop, host.SecurityOpt = []string{"ALL"}, []string{"no-new-privileges:true"}
			host.PortBindings = mobynetwork.PortMap{}
			for _, port := range s.ports {
				host.PortBindings[mobynetwork.MustParsePort(port)] = []mobynetwork.PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1")}}
			}
			if s.host != nil {
				s.host(host)
			}
		}),
	}
	made, err := testcontainers.Run(ctx, s.image, options...)
	if made == nil {
		return nil, err
	}
	n := &node{name: s.name, id: made.GetContainerID()}
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	return n, err
}

func variables(e env) map[string]string {
	all := make(map[string]string, len(e))
	for name, value := range e {
		all[config.Prefix+"_"+name] = value
	}
	return all
}

// files are the certificates that a container gets.
func (c *cluster) files(s spec) []testcontainers.ContainerFile {
	names := s.files
	if names == nil {
		role, _, _ := strings.Cut(path.Base(s.image), ":")
		names = material(identity.Role(role), identity.Role(role))
	}
	var files []testcontainers.ContainerFile
	for there, here := range names {
		files = append(files, testcontainers.ContainerFile{
			HostFilePath: filepath.Join(c.certs, here), ContainerFilePath: "/certs/" + there,
			FileMode: 0o444, // the images run as a user that is none here
		})
	}
	return files
}

// material are the files of a container that serves as one role, with the certificate of another or its own.
func material(as, of identity.Role) map[string]string {
	return map[string]string{
		"ca.pem": "ca.pem", string(as) + ".pem": string(of) + ".pem", string(as) + "-key.pem": string(of) + "-key.pem",
	}
}

// serving waits until the director has these workers' links and they take sessions.
func (c *cluster) serving(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		c.workerIs(t, name, "serves", func(w workerStatusLine) bool { return w.Connected && w.Available })
	}
}

// workerIs waits until the director shows a worker to be as ok wants it.
func (c *cluster) workerIs(t *testing.T, name, what string, ok func(workerStatusLine) bool) {
	t.Helper()
	eventually(t, name+" "+what, func() (bool, error) {
		all, err := c.witness.workers(t.Context())
		return err == nil && ok(all[name]), nil
	})
}

// restart stops a worker as an operator does, starts it again, and waits until it serves.
func (c *cluster) restart(t *testing.T, name string) {
	t.Helper()
	before := c.instance(t, name)
	c.workers[name].stop(t)
	c.workers[name].start(t)
	c.newInstance(t, name, before)
}

// replace does the same with a new container.
func (c *cluster) replace(t *testing.T, name string) {
	t.Helper()
	before := c.instance(t, name)
	c.workers[name].stop(t)
	n, err := c.start(t.Context(), c.worker(name, workerImage))
	if err != nil {
		t.Fatal(err)
	}
	c.workers[name] = n
	c.newInstance(t, name, before)
}

func (c *cluster) instance(t *testing.T, name string) string {
	t.Helper()
	all, err := c.witness.workers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all[name].Instance
}

// newInstance waits for a worker's next process. One that was drained stays so.
func (c *cluster) newInstance(t *testing.T, name, before string) {
	t.Helper()
	c.workerIs(t, name, "is back", func(w workerStatusLine) bool {
		return w.Instance != before && w.Connected && (w.Available || w.Draining)
	})
}

// cut takes a node off the network.
func (c *cluster) cut(t *testing.T, n *node) {
	t.Helper()
	_, err := docker.NetworkDisconnect(t.Context(), c.network.ID, client.NetworkDisconnectOptions{Container: n.id})
	n.must(t, "network disconnect", err)
}

// heal puts a node back on the network, perhaps with another address.
func (c *cluster) heal(t *testing.T, n *node) {
	t.Helper()
	_, err := docker.NetworkConnect(t.Context(), c.network.ID, client.NetworkConnectOptions{
		Container: n.id, EndpointConfig: &mobynetwork.EndpointSettings{Aliases: []string{n.name}},
	})
	n.must(t, "network connect", err)
}

// down removes everything; of a failed test all that was logged is shown first.
func (c *cluster) down(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), waitTimeout)
	defer cancel()
	for _, n := range c.nodes {
		if t.Failed() {
			stdout, stderr, err := n.output(ctx)
			t.Logf("output of %s (%v):\n%s%s", n.name, err, stdout, stderr)
		}
		if err := removeContainer(ctx, n.id); err != nil {
			t.Errorf("removing %s: %v", n.name, err)
		}
	}
	if c.network != nil {
		if err := c.network.Remove(ctx); err != nil {
			t.Errorf("removing the network: %v", err)
		}
	}
}
