package main

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

// cluster is a director and two workers, each a process of its own.
type cluster struct {
	bin, dir string
	env      []string
	ports    []int // director USER and MGMT, then the workers'
	tls      identity.Source
	director *exec.Cmd
	workers  map[string]*exec.Cmd
}

// start starts the director. env is for all processes.
func start(bin string, env ...string) (c *cluster, err error) {
	c = &cluster{bin: bin, workers: map[string]*exec.Cmd{}}
	if c.dir, err = os.MkdirTemp("", "connswap-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	certs := filepath.Join(c.dir, "certs")
	if _, err := identity.EnsureDevelopment(certs, time.Now()); err != nil {
		return nil, err
	}
	if c.tls, err = identity.FromDir(certs, identity.Client); err != nil {
		return nil, err
	}
	if c.ports, err = freePorts(6); err != nil {
		return nil, err
	}
	c.env = append(append(os.Environ(), "CONNECTION_SWAP_TLS_DIR="+certs, "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true",
		"CONNECTION_SWAP_MGMT_PLAIN_STATUS=true"), env...)
	c.director, err = c.launch("director", "director", []string{
		"CONNECTION_SWAP_DIRECTOR_USER_ADDR=" + addr(c.ports[0]), "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR=" + addr(c.ports[1]),
	})
	return c, err
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts finds ports that are free now, for UDP and for TCP. They are below those that the system gives to whoever
// dials, so that nobody takes them before their process has started.
func freePorts(n int) (ports []int, err error) {
	const first, tries = 20000, 10000
	for range tries {
		port := first + rand.IntN(tries)
		l, err := net.Listen("tcp", addr(port))
		if err != nil {
			continue
		}
		defer l.Close() //nolint:errcheck // it only held the port
		u, err := net.ListenPacket("udp", addr(port))
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

func (c *cluster) launch(binary, name string, env []string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has a handle of its own
	cmd := exec.Command(filepath.Join(c.bin, binary))
	cmd.Env, cmd.Stdout, cmd.Stderr = append(append([]string(nil), c.env...), env...), log, log
	return cmd, cmd.Start()
}

// work starts the worker of that name, a or b, and waits until it is available.
func (c *cluster) work(ctx context.Context, name string) error {
	i := 2 + 2*int(name[0]-'a')
	cmd, err := c.launch("worker", "worker-"+name, []string{
		"CONNECTION_SWAP_WORKER_LABEL=" + name, "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR=" + addr(c.ports[1]),
		"CONNECTION_SWAP_WORKER_USER_ADDR=" + addr(c.ports[i]), "CONNECTION_SWAP_WORKER_MGMT_ADDR=" + addr(c.ports[i+1]),
	})
	if err != nil {
		return err
	}
	c.workers[name] = cmd
	return c.await(ctx, name)
}

// await waits until the director counts the worker as connected and available.
func (c *cluster) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var status struct {
			Workers []struct {
				Worker               string
				Connected, Available bool
			}
		}
		if err := c.status("/v1/workers", &status); err == nil {
			for _, w := range status.Workers {
				if w.Worker == name && w.Connected && w.Available {
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("worker %s is not available:\n%s", name, c.logs())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *cluster) status(path string, into any) error {
	return mgmt.Get(context.Background(), http.DefaultTransport, "http://"+addr(c.ports[1])+path, into)
}

// swaps returns how many swaps the director has seen.
func (c *cluster) swaps() (int, error) {
	var status struct{ Total int }
	err := c.status("/v1/swaps", &status)
	return status.Total, err
}

func (c *cluster) dial(ctx context.Context) (*connswap.Conn, error) {
	return connswap.Dial(ctx, addr(c.ports[0]), connswap.Options{TLS: c.tls, Name: "bench"})
}

// logs returns the end of each process's log.
func (c *cluster) logs() string {
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(c.dir, "*.log")) // the pattern is well formed
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

// stop kills all processes and removes what they left.
func (c *cluster) stop() {
	for _, cmd := range c.workers {
		_ = kill(cmd)
	}
	if c.director != nil {
		_ = kill(c.director)
	}
	_ = os.RemoveAll(c.dir)
}

func kill(cmd *exec.Cmd) error {
	err := cmd.Process.Kill()
	_ = cmd.Wait() // it says that the process was killed
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
