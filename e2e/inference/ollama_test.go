package inference

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/e2e/internal/cluster"
)

const root = "../.."

// made is where scripts/inference.sh has put what it makes.
func made(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("INFERENCE_DIR")
	if dir == "" {
		dir = filepath.Join(root, ".dev/inference")
	}
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	return dir
}

func ollamaBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("OLLAMA"); path != "" {
		return path
	}
	found, err := filepath.Glob(filepath.Join(made(t), "bin/ollama-*"))
	require.NoError(t, err)
	require.NotEmpty(t, found, "there is no Ollama: make inference")
	return found[len(found)-1]
}

// store is where the servers of a test run have their models, which are created once.
var store = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "connswap-models-")
	if err == nil {
		kept.remove(dir)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	if os.Getenv(keeps) != "" {
		keep(os.Stdin)
		return
	}
	var err error
	if kept, err = startKeeper(); err != nil {
		fmt.Fprintln(os.Stderr, "no process ends what is left:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := kept.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "what is left may not have been ended:", err)
	}
	os.Exit(code)
}

// server is an Ollama on a port of its own.
type server struct {
	*testing.T
	port  int
	env   []string
	dir   string
	cmd   *exec.Cmd
	path  *path // by which workers reach it
	ended chan struct{}
}

var created sync.Once

// startServer starts a server that has the models words, frag, utf8, slow and chat. env is for it alone.
func startServer(t *testing.T, env ...string) *server {
	t.Helper()
	ports, err := cluster.FreePorts(1)
	require.NoError(t, err)
	s := &server{T: t, port: ports[0], env: env, dir: t.TempDir()}
	kept.remove(s.dir)
	s.start()
	t.Cleanup(s.kill)
	created.Do(s.create)
	s.path = newPath(t, s.addr())
	return s
}

func (s *server) addr() string { return cluster.Addr(s.port) }

func (s *server) command(args ...string) *exec.Cmd {
	models, err := store()
	require.NoError(s, err)
	cmd := exec.Command(ollamaBinary(s.T), args...)
	cmd.Env = append(append(os.Environ(), "HOME="+s.dir, "OLLAMA_HOST="+s.addr(), "OLLAMA_MODELS="+models, "OLLAMA_NO_CLOUD=1", "OLLAMA_KEEP_ALIVE=1h"), s.env...)
	return cmd
}

// start starts the server, at its port, and waits until it answers.
func (s *server) start() {
	s.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(s, err)
	defer log.Close() //nolint:errcheck // the process has a handle of its own
	s.cmd = s.command("serve")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // its runners are in the group
	require.NoError(s, s.cmd.Start())
	kept.add(-s.cmd.Process.Pid)
	s.ended = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // it says that the process was killed
		close(s.ended)
	}()
	require.Eventually(s, func() bool {
		resp, err := http.Get("http://" + s.addr() + "/api/version")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	}, 30*time.Second, 20*time.Millisecond, "the server does not answer")
}

// kill ends the server and its runners at once.
func (s *server) kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // there may be none
	<-s.ended
	kept.forget(-s.cmd.Process.Pid)
}

func (s *server) signal(sig syscall.Signal) {
	s.Helper()
	require.NoError(s, syscall.Kill(-s.cmd.Process.Pid, sig))
}

// killRunners ends the processes that make the tokens.
func (s *server) killRunners() { s.signalRunners(syscall.SIGKILL) }

func (s *server) signalRunners(sig syscall.Signal) {
	s.Helper()
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(s.cmd.Process.Pid)).Output()
	require.NoError(s, err, "there is no runner")
	for _, pid := range strings.Fields(string(out)) {
		n, err := strconv.Atoi(pid)
		require.NoError(s, err)
		require.NoError(s, syscall.Kill(n, sig))
	}
}

// create makes the models. A thread each is enough for them, and threads that spin would take turns on a machine with few cores.
func (s *server) create() {
	s.Helper()
	const template = `TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""`
	const bare = `TEMPLATE "{{ .Prompt }}"`
	for name, of := range map[string][2]string{
		"words": {"words", bare}, "frag": {"frag", bare}, "utf8": {"utf8", bare}, "slow": {"slow", bare}, "chat": {"slow", template},
	} {
		file := filepath.Join(s.dir, name+".modelfile")
		text := fmt.Sprintf("FROM %s/models/%s.gguf\n%s\nPARAMETER num_ctx 4096\nPARAMETER repeat_penalty 1\nPARAMETER num_thread 1\n", made(s.T), of[0], of[1])
		require.NoError(s, os.WriteFile(file, []byte(text), 0o600))
		out, err := s.command("create", name, "-f", file).CombinedOutput()
		require.NoError(s, err, "%s", out)
	}
}

// document is a request, or an answer.
type document = map[string]any

// post asks the server itself.
func (s *server) post(where string, document any) (*http.Response, error) {
	b, err := json.Marshal(document)
	require.NoError(s, err)
	return http.Post("http://"+s.addr()+where, "application/json", bytes.NewReader(b))
}

// path is the network between a worker and its server.
type path struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   chan struct{} // closed while nothing passes
}

func newPath(t *testing.T, to string) *path {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &path{listener: l, to: to, conns: map[net.Conn]bool{}, cut: make(chan struct{})}
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			_ = c.Close()
		}
	})
	go p.serve()
	return p
}

func (p *path) url() string { return "http://" + p.listener.Addr().String() }

func (p *path) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.carry(c)
	}
}

func (p *path) carry(c net.Conn) {
	defer c.Close() //nolint:errcheck // both ends are over
	p.mu.Lock()
	p.conns[c] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}()
	up, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.to)
	if err != nil {
		return
	}
	defer up.Close() //nolint:errcheck // as above
	go func() {
		defer up.Close() //nolint:errcheck // the client has gone
		_, _ = io.Copy(gated{up, p}, c)
	}()
	_, _ = io.Copy(gated{c, p}, up)
}

// gated writes once the path is not cut.
type gated struct {
	net.Conn
	path *path
}

func (g gated) Write(b []byte) (int, error) {
	for {
		g.path.mu.Lock()
		cut := g.path.cut
		g.path.mu.Unlock()
		select {
		case <-cut:
			time.Sleep(10 * time.Millisecond)
		default:
			return g.Conn.Write(b)
		}
	}
}

// breakOff has nothing pass any more, without anybody being told.
func (p *path) breakOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.cut)
}

// mend lets through what comes from now on; what there was is over.
func (p *path) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.cut = make(chan struct{})
}
