package loopback

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/identity"
)

// binaries builds the serving roles, once for all tests, and returns the directory.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "connswap-loopback-")
	if err != nil {
		return "", err
	}
	const module = "github.com/connswap/connswap/services/"
	out, err := exec.Command("go", "build", "-o", dir+"/", module+"director", module+"worker", module+"client").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := binaries(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// process is a role that runs. Its standard error is a pipe that takes 4 KiB.
type process struct {
	*exec.Cmd

	pipe   *os.File // the end to read
	reader *bufio.Reader
	exited chan error
}

func start(t *testing.T, role string, env ...string) *process {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.CommandContext(t.Context(), filepath.Join(dir, role)), pipe: r, reader: bufio.NewReader(r), exited: make(chan error, 1)}
	p.Env, p.Stderr = append([]string{"CONNECTION_SWAP_LOG_FORMAT=json"}, env...), w
	if err := errors.Join(p.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.Wait() }()
	t.Cleanup(func() { _ = p.Process.Kill() }) // it has ended, unless the test failed
	return p
}

// client starts the client program, behind another command if there is one.
func (c *cluster) client(t *testing.T, before []string, args ...string) *process {
	t.Helper()
	p := c.command(t, before, args...)
	p.run(t)
	return p
}

// command is a client that has not been started.
func (c *cluster) command(t *testing.T, before []string, args ...string) *process {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	args = append(append(before, filepath.Join(dir, "client")), args...)
	p := &process{Cmd: exec.CommandContext(t.Context(), args[0], args[1:]...), exited: make(chan error, 1)}
	p.Env = append(os.Environ(), "CONNECTION_SWAP_TLS_DIR="+c.certs, "CONNECTION_SWAP_DIRECTOR_TARGET="+c.user,
		"CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="+c.http["director"])
	return p
}

// run starts what command returned.
func (p *process) run(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.Wait() }()
}

// wait waits for the end of what run started, whose exit code says how it went.
func (p *process) wait() {
	for range p.exited {
		return
	}
}

// line reads until a line has the message, and returns it.
func (p *process) line(t *testing.T, message string) map[string]any {
	t.Helper()
	for {
		text, err := p.reader.ReadString('\n')
		if err != nil {
			t.Fatalf("no line %q: %v", message, err)
		}
		var entry map[string]any
		if err := json.Unmarshal([]byte(text), &entry); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if entry["msg"] == message {
			return entry
		}
	}
}

// terminate ends the process in order, within a time in which a stuck one would not.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		if err != nil {
			rest, _ := io.ReadAll(p.reader) // what it could still say
			t.Errorf("%s: %v\n%s", p.Path, err, rest)
		}
	case <-time.After(time.Minute):
		t.Errorf("%s does not end", p.Path)
	}
}

// cluster is a director and two workers.
type cluster struct {
	director *process
	workers  map[string]*process
	http     map[string]string // MGMT addresses, by name
	user     string
	tls      identity.Source // a client's
	certs    string
}

func up(t *testing.T, env ...string) *cluster {
	t.Helper()
	certs := t.TempDir()
	if _, err := identity.EnsureDevelopment(certs, time.Now()); err != nil {
		t.Fatal(err)
	}
	tls, err := identity.FromDir(certs, identity.Client)
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, "CONNECTION_SWAP_TLS_DIR="+certs, "CONNECTION_SWAP_DIRECTOR_ID=director", "CONNECTION_SWAP_MGMT_PLAIN_STATUS=true",
		"CONNECTION_SWAP_DIRECTOR_USER_ADDR=127.0.0.1:0", "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="+freePort(t))
	c := &cluster{workers: map[string]*process{}, http: map[string]string{}, tls: tls, certs: certs}
	c.director = start(t, "director", env...)
	serves := c.director.line(t, "director serves")
	c.user, c.http["director"] = serves["user"].(string), serves["mgmt"].(string)
	for _, name := range []string{"worker-a", "worker-b"} {
		w := start(t, "worker", append(env, "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="+c.http["director"],
			"CONNECTION_SWAP_WORKER_LABEL="+name, "CONNECTION_SWAP_WORKER_TOKEN_INTERVAL=20ms",
			"CONNECTION_SWAP_WORKER_USER_ADDR=127.0.0.1:0", "CONNECTION_SWAP_WORKER_MGMT_ADDR=127.0.0.1:0")...)
		c.workers[name], c.http[name] = w, w.line(t, "worker started")["mgmt_addr"].(string)
	}
	return c
}

// freePort returns an address that was free a moment ago: a director's HTTP is on the number of its MGMT port.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody had it
	return l.Addr().String()
}

// generate runs a stream on a connection of its own to its end. first is told the worker of the first token.
func (c *cluster) generate(ctx context.Context, tokens uint32, first func(worker string)) (done connswap.Done, err error) {
	conn, err := connswap.Dial(ctx, c.user, connswap.Options{TLS: c.tls})
	if err != nil {
		return done, err
	}
	defer conn.Close() //nolint:errcheck // the stream is over
	stream, err := conn.Generate(ctx, connswap.Request{Prompt: "The river", MaxTokens: tokens, Seed: 1})
	if err != nil {
		return done, err
	}
	for event, err := range stream.Events() {
		if err != nil {
			return done, err
		}
		switch e := event.(type) {
		case connswap.Token:
			if e.Sequence == 1 && first != nil {
				first(e.Worker)
			}
		case connswap.Done:
			done = e
		}
	}
	return done, nil
}

// many runs short streams, a few at a time.
func (c *cluster) many(t *testing.T, n int) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for range n {
		group.Go(func() error {
			_, err := c.generate(ctx, 2, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// get asks a node over HTTP.
func (c *cluster) get(t *testing.T, name, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.http[name]+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// follower reads a process's lines as they come.
type follower struct {
	text bytes.Buffer
	done chan struct{} // closed at the end of the process
}

func (p *process) follow() *follower {
	f := &follower{done: make(chan struct{})}
	go func() {
		defer close(f.done)
		_, _ = io.Copy(&f.text, p.reader) // fails where the reader is closed
	}()
	return f
}

// logLine is one line of a log.
type logLine struct {
	Level, Msg   string
	ConnectionID string `json:"connection.id"`
}

// lines returns what the process has logged. It has to have ended.
func (f *follower) lines(t *testing.T) []logLine {
	t.Helper()
	<-f.done
	var all []logLine
	for text := range strings.Lines(f.text.String()) {
		var line logLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, line)
	}
	return all
}

// logged terminates a cluster, and returns what its director and its workers have logged while work went on.
func (c *cluster) logged(t *testing.T, work func()) (director, workers []logLine) {
	t.Helper()
	own := c.director.follow()
	logs := map[string]*follower{}
	for name, w := range c.workers {
		logs[name] = w.follow()
	}
	work()
	for name, w := range c.workers {
		w.terminate(t)
		workers = append(workers, logs[name].lines(t)...)
	}
	c.director.terminate(t)
	return own.lines(t), workers
}
