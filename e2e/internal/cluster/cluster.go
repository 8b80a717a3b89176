// Package cluster runs a director and its workers as real processes on loopback, for programs that measure and attack them.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
)

// Cluster is a director and workers, each a process of its own.
type Cluster struct {
	Dir      string          // with the certificates, in certs, and the logs
	Ports    []int           // director USER and MGMT, then those of workers a, b …
	TLS      identity.Source // of a client
	Director *exec.Cmd
	Workers  map[string]*exec.Cmd // by label: a, b …
	Patience time.Duration        // with a worker that is to become available

	bin string
	env []string
}

// Start starts the director, with room for so many workers. bin is where the binaries are, env is for all processes.
func Start(bin string, workers int, env ...string) (c *Cluster, err error) {
	c = &Cluster{bin: bin, Workers: map[string]*exec.Cmd{}, Patience: 30 * time.Second}
	if c.Dir, err = os.MkdirTemp("", "connswap-cluster-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	certs := filepath.Join(c.Dir, "certs")
	if _, err := identity.EnsureDevelopment(certs, time.Now()); err != nil {
		return nil, err
	}
	if c.TLS, err = identity.FromDir(certs, identity.Client); err != nil {
		return nil, err
	}
	if c.Ports, err = FreePorts(2 + 2*workers); err != nil {
		return nil, err
	}
	c.env = append(append(os.Environ(), "CONNECTION_SWAP_TLS_DIR="+certs, "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true",
		"CONNECTION_SWAP_MGMT_PLAIN_STATUS=true"), env...)
	c.Director, err = c.launch("director", "director", []string{
		"CONNECTION_SWAP_DIRECTOR_USER_ADDR=" + Addr(c.Ports[0]), "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR=" + Addr(c.Ports[1]),
	})
	return c, err
}

// Addr is a port of this machine, as an address.
func Addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// FreePorts finds ports that are free now, for UDP and for TCP. They are below those that the system gives to whoever
// dials, so that nobody takes them before their process has started.
func FreePorts(n int) (ports []int, err error) {
	const first, tries = 20000, 10000
	for range tries {
		port := first + rand.IntN(tries)
		l, err := net.Listen("tcp", Addr(port))
		if err != nil {
			continue
		}
		defer l.Close() //nolint:errcheck // it only held the port
		u, err := net.ListenPacket("udp", Addr(port))
		if err != nil {
			continue
		}
		defer u.Close() //nolint:errcheck // it only held the port
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports from %d on", n, first)
}

func (c *Cluster) launch(binary, name string, env []string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(c.Dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has a handle of its own
	cmd := exec.Command(filepath.Join(c.bin, binary))
	cmd.Env, cmd.Stdout, cmd.Stderr = append(append([]string(nil), c.env...), env...), log, log
	return cmd, cmd.Start()
}

// Work starts the worker of that name, a, b …, with variables of its own, and waits until it is available.
func (c *Cluster) Work(ctx context.Context, name string, env ...string) error {
	if err := c.Launch(name, env...); err != nil {
		return err
	}
	return c.Await(ctx, name)
}

// Launch starts a worker as Work does, and does not wait.
func (c *Cluster) Launch(name string, env ...string) error {
	i := 2 + 2*int(name[0]-'a')
	cmd, err := c.launch("worker", "worker-"+name, append(env,
		"CONNECTION_SWAP_WORKER_LABEL="+name, "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="+Addr(c.Ports[1]),
		"CONNECTION_SWAP_WORKER_USER_ADDR="+Addr(c.Ports[i]), "CONNECTION_SWAP_WORKER_MGMT_ADDR="+Addr(c.Ports[i+1]),
	))
	if err != nil {
		return err
	}
	c.Workers[name] = cmd
	return nil
}

// Await waits until the director counts the worker as connected and available.
func (c *Cluster) Await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	for {
		var status struct {
			Workers []struct {
				Worker               string
				Connected, Available bool
			}
		}
		if err := c.Status("/v1/workers", &status); err == nil {
			for _, w := range status.Workers {
				if w.Worker == name && w.Connected && w.Available {
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("worker %s is not available:\n%s", name, c.Logs())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Status gets a document from the director's MGMT port.
func (c *Cluster) Status(path string, into any) error { return c.get(1, path, into) }

// WorkerStatus gets a document from a worker's MGMT port.
func (c *Cluster) WorkerStatus(name, path string, into any) error {
	return c.get(3+2*int(name[0]-'a'), path, into)
}

func (c *Cluster) get(port int, path string, into any) error {
	return mgmt.Get(context.Background(), http.DefaultTransport, "http://"+Addr(c.Ports[port])+path, into)
}

// Binary returns the command of one of the binaries, with the variables that all have.
func (c *Cluster) Binary(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, name), args...)
	cmd.Env = append(append([]string(nil), c.env...), "CONNECTION_SWAP_DIRECTOR_TARGET="+Addr(c.Ports[0]),
		"CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="+Addr(c.Ports[1]))
	return cmd
}

// Swaps returns how many swaps the director has seen.
func (c *Cluster) Swaps() (int, error) {
	var status struct{ Total int }
	err := c.Status("/v1/swaps?limit=1", &status)
	return status.Total, err
}

// Addr is where clients find the director.
func (c *Cluster) Addr() string { return Addr(c.Ports[0]) }

// Dial connects a client.
func (c *Cluster) Dial(ctx context.Context) (*connswap.Conn, error) {
	return connswap.Dial(ctx, c.Addr(), connswap.Options{TLS: c.TLS, Name: "e2e"})
}

// Logs returns the end of each process's log.
func (c *Cluster) Logs() string {
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(c.Dir, "*.log")) // the pattern is well formed
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		if end, err := f.Seek(0, io.SeekEnd); err == nil {
			_, _ = f.Seek(max(0, end-1500), io.SeekStart)
		}
		tail, _ := io.ReadAll(f)
		_ = f.Close()
		fmt.Fprintf(&all, "%s: …%s\n", filepath.Base(file), tail)
	}
	return all.String()
}

// Stop kills all processes and removes what they left.
func (c *Cluster) Stop() {
	for _, cmd := range c.Workers {
		_ = Kill(cmd)
	}
	if c.Director != nil {
		_ = Kill(c.Director)
	}
	_ = os.RemoveAll(c.Dir)
}

// Kill ends a process at once, and waits for that.
func Kill(cmd *exec.Cmd) error {
	err := cmd.Process.Kill()
	_ = cmd.Wait() // it says that the process was killed
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
