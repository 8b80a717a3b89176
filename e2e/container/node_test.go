package container

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/connswap/connswap/shared/mgmt"
)

// node is one container.
type node struct {
	name string
	id   string
}

// signal sends a signal to the node's first process. The daemon takes it for the operator's wish that the container
// ends: its restart policy does not apply any more.
func (n *node) signal(t *testing.T, signal string) {
	t.Helper()
	_, err := docker.ContainerKill(t.Context(), n.id, client.ContainerKillOptions{Signal: signal})
	n.must(t, "kill", err)
}

func (n *node) pause(t *testing.T) {
	t.Helper()
	_, err := docker.ContainerPause(t.Context(), n.id, client.ContainerPauseOptions{})
	n.must(t, "pause", err)
}

func (n *node) unpause(t *testing.T) {
	t.Helper()
	_, err := docker.ContainerUnpause(t.Context(), n.id, client.ContainerUnpauseOptions{})
	n.must(t, "unpause", err)
}

// stop ends the node as an operator does, and checks that it goes in time and in peace.
func (n *node) stop(t *testing.T) {
	t.Helper()
	grace := 60 // seconds
	_, err := docker.ContainerStop(t.Context(), n.id, client.ContainerStopOptions{Timeout: &grace})
	n.must(t, "stop", err)
	if code := n.inspect(t).State.ExitCode; code != 0 {
		t.Errorf("%s: exit code %d after SIGTERM", n.name, code)
	}
}

func (n *node) start(t *testing.T) {
	t.Helper()
	_, err := docker.ContainerStart(t.Context(), n.id, client.ContainerStartOptions{})
	n.must(t, "start", err)
}

func (n *node) must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("docker %s %s: %v", what, n.name, err)
	}
}

func (n *node) inspect(t *testing.T) container.InspectResponse {
	t.Helper()
	result, err := docker.ContainerInspect(t.Context(), n.id, client.ContainerInspectOptions{})
	n.must(t, "inspect", err)
	return result.Container
}

// exit waits for the node's end and returns its exit code.
func (n *node) exit(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	wait := docker.ContainerWait(ctx, n.id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case end := <-wait.Result:
		return int(end.StatusCode)
	case err := <-wait.Error:
		t.Fatalf("waiting for the end of %s: %v", n.name, err)
	}
	return -1
}

// output returns all that the node has written so far, over all its lives.
func (n *node) output(ctx context.Context) (stdout, stderr string, err error) {
	logs, err := docker.ContainerLogs(ctx, n.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return "", "", err
	}
	defer logs.Close()
	var out, errs bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &errs, logs)
	return out.String(), errs.String(), err
}

// published returns where a port of the node, such as 63001/tcp, is on this machine. It changes when the node restarts.
func (n *node) published(ctx context.Context, port string) (string, error) {
	result, err := docker.ContainerInspect(ctx, n.id, client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	bindings := result.Container.NetworkSettings.Ports[network.MustParsePort(port)]
	if len(bindings) == 0 {
		return "", fmt.Errorf("%s: port %s is not published", n.name, port)
	}
	return net.JoinHostPort(bindings[0].HostIP.String(), bindings[0].HostPort), nil
}

// fetch reads a JSON document from an address, all its pages.
func fetch(ctx context.Context, addr, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return mgmt.Get(ctx, http.DefaultTransport, "http://"+addr+path, into)
}

// waitTimeout bounds every wait: long enough for a machine that has other things to do.
const waitTimeout = 2 * time.Minute

// eventually waits until ok holds. It fails the test if that takes too long, or ok gives an error.
func eventually(t *testing.T, what string, ok func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		switch {
		case err != nil:
			t.Fatalf("waiting until %s: %v", what, err)
		case done:
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v, in vain, until %s", waitTimeout, what)
		}
	}
}
