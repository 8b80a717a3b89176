package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// asClient makes the test's binary be the client.
const asClient = "TEST_AS_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(asClient) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a client that runs as a process of its own, against a director on loopback.
type process struct {
	cmd    *exec.Cmd
	stdout io.ReadCloser
	lines  *bufio.Scanner
	closed chan error // why the client's connection ended, as the director sees it
}

func startClient(t *testing.T) *process {
	t.Helper()
	certs := t.TempDir()
	if _, err := identity.EnsureDevelopment(certs, time.Now()); err != nil {
		t.Fatal(err)
	}
	source, err := identity.FromDir(certs, identity.Director)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	d := fakedirector.Director{Network: quicnet.OS{}, Addr: "127.0.0.1:0", TLS: source, Play: func(s *fakedirector.Stream) {
		s.Assign()
		for s.Conn.Context().Err() == nil { // as long as there is somebody to read it
			s.Say(1, "word ")
		}
		closed <- context.Cause(s.Conn.Context())
	}}
	d.Start(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "generate", "--output", "json")
	cmd.Env = append(os.Environ(), asClient+"=1", "CONNECTION_SWAP_TLS_DIR="+certs, "CONNECTION_SWAP_DIRECTOR_TARGET="+d.Addr)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &process{cmd: cmd, stdout: stdout, lines: bufio.NewScanner(stdout), closed: closed}
}

func (p *process) waitFor(t *testing.T, event string) {
	t.Helper()
	for p.lines.Scan() {
		if strings.Contains(p.lines.Text(), `"event":"`+event+`"`) {
			return
		}
	}
	t.Fatalf("the output ended before %q: %v", event, p.lines.Err())
}

// cancelled checks that the client ended as a cancelled one does.
func (p *process) cancelled(t *testing.T) {
	t.Helper()
	var exit *exec.ExitError
	if err := p.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("the client ended with %v, want exit code 130", err)
	}
	var said *quic.ApplicationError
	if err := <-p.closed; !errors.As(err, &said) || !said.Remote {
		t.Errorf("the director learned of it by %v", err)
	}
}

// A signal ends the client in good order, even if it comes twice, as it does from timeout(1).
func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			p := startClient(t)
			p.waitFor(t, "token")
			for range 2 {
				if err := p.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			p.waitFor(t, "error")
			p.cancelled(t)
		})
	}
}

func TestOutputCutShort(t *testing.T) {
	p := startClient(t)
	p.waitFor(t, "token")
	if err := p.stdout.Close(); err != nil {
		t.Fatal(err)
	}
	p.cancelled(t)
}
