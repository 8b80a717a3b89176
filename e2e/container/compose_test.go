package container

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"
)

// compose runs whichever Compose is installed on the project's file.
func compose(ctx context.Context, t *testing.T, variables env, args ...string) {
	t.Helper()
	command := []string{"docker", "compose"}
	if exec.CommandContext(ctx, "docker", "compose", "version").Run() != nil {
		command = []string{"docker-compose"}
	}
	command = append(command, "-p", project, "-f", "deploy/docker-compose.yml")
	command = append(command, args...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = "../.."
	cmd.Env = os.Environ()
	for name, value := range variables {
		cmd.Env = append(cmd.Env, "CONNECTION_SWAP_"+name+"="+value)
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", command, err, output)
	}
}

// service finds the container of a service.
func service(ctx context.Context, name string) (*node, error) {
	found, err := docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).
		Add("label", composeLabel+"="+project, "com.docker.compose.service="+name)})
	if err != nil {
		return nil, err
	}
	if len(found.Items) != 1 {
		return nil, fmt.Errorf("%d containers of service %s", len(found.Items), name)
	}
	return &node{name: name, id: found.Items[0].ID}, nil
}

// services are those of the Compose file.
var services = []string{"certs", "director", "worker-a", "worker-b", "worker-c", "client"}

// isConfined checks what a service's container may do, find and fill: keys, memory, processes, log.
func isConfined(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	n, err := service(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := docker.ContainerInspect(ctx, n.id, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host := shown.Container.HostConfig
	if !host.ReadonlyRootfs || !slices.Equal(host.CapDrop, []string{"ALL"}) || len(host.SecurityOpt) == 0 ||
		host.PidsLimit == nil || *host.PidsLimit <= 0 {
		t.Errorf("%s: read-only %v, without %v, %v, processes %v", name, host.ReadonlyRootfs, host.CapDrop, host.SecurityOpt, host.PidsLimit)
	}
	keys := map[string]string{"director": "director-certs", "client": "client-certs"}
	if key := cmp.Or(keys[name], "worker-certs"); name != "certs" {
		if mounts := shown.Container.Mounts; len(mounts) != 1 || mounts[0].RW || !strings.HasSuffix(mounts[0].Name, "_"+key) {
			t.Errorf("%s: it finds more than its own key, or may write: %+v", name, mounts)
		}
	}
	if host.Memory <= 0 {
		t.Errorf("%s: its memory has no limit", name)
	}
	if logs := host.LogConfig; logs.Type != "json-file" || logs.Config["max-size"] == "" || logs.Config["max-file"] == "" {
		t.Errorf("%s: its log grows without a bound: %+v", name, logs)
	}
}

// The Compose file, as it is, with short times.
func TestCompose(t *testing.T) {
	t.Parallel()
	for network, addr := range map[string]string{"tcp": "127.0.0.1:61001", "udp": "127.0.0.1:61000"} {
		if err := free(network, addr); err != nil {
			t.Fatalf("the Compose file publishes %s, which somebody has, perhaps `make up`: %v", addr, err)
		}
	}
	r := request{prompt: "In the old house", tokens: 160, seed: 5}
	variables := env{
		"CLIENT_PROMPT": r.prompt, "CLIENT_MAX_TOKENS": "160", "CLIENT_SEED": "5", "CLIENT_OUTPUT": "json",
		"WORKER_TOKEN_INTERVAL": "60ms", "WORKER_FAILURE_MIN": "1s", "WORKER_FAILURE_MAX": "3s", "WORKER_RECOVERY": "1s",
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitTimeout)
	defer cancel()
	c := &cluster{witness: &witness{addr: "127.0.0.1:61001"}}
	var stop context.CancelFunc
	c.ctx, stop = context.WithCancel(ctx)
	defer func() {
		stop()
		c.run.Wait()
		for _, name := range services {
			if n, err := service(ctx, name); t.Failed() && err == nil {
				stdout, stderr, _ := n.output(ctx)
				t.Logf("output of %s:\n%s%s", name, stdout, stderr)
			}
		}
		compose(ctx, t, variables, "down", "--volumes", "--remove-orphans")
		nothingLeft(ctx, t)
	}()
	c.run.Go(func() { c.witness.watch(c.ctx) })
	compose(ctx, t, variables, "up", "-d", "--no-build")
	n, err := service(ctx, "client")
	if err != nil {
		t.Fatal(err)
	}
	cl := c.attend(t, n, r)
	for _, name := range services {
		isConfined(ctx, t, name)
	}
	for _, name := range []string{"worker-a", "worker-b", "worker-c"} {
		c.workerIs(t, name, "registers", func(w workerStatusLine) bool { return w.Connected })
	}
	compose(ctx, t, variables, "run", "--rm", "client", "status")
	if events := c.survives(t, cl); len(events.of("swapped")) < 2 {
		t.Errorf("%d swaps in a stream of ten seconds", len(events.of("swapped")))
	}
}

func free(network, addr string) error {
	if network == "udp" {
		conn, err := net.ListenPacket(network, addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	listener, err := net.Listen(network, addr)
	if err == nil {
		err = listener.Close()
	}
	return err
}

// nothingLeft checks that Compose has removed all it made.
func nothingLeft(ctx context.Context, t *testing.T) {
	t.Helper()
	filters := make(client.Filters).Add("label", composeLabel+"="+project)
	containers, err := docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil || len(containers.Items) > 0 {
		t.Errorf("containers left: %+v (%v)", containers.Items, err)
	}
	networks, err := docker.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
	if err != nil || len(networks.Items) > 0 {
		t.Errorf("networks left: %+v (%v)", networks.Items, err)
	}
	volumes, err := docker.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
	if err != nil || len(volumes.Items) > 0 {
		t.Errorf("volumes left: %+v (%v)", volumes.Items, err)
	}
}
