package cli_test

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/internal/cli"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/simtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file in testdata.
func golden(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// terminal runs commands on a host of a simulated network, in a bubble with fake time.
type terminal struct {
	*testing.T
	net      *simtest.Net
	client   *simtest.Host
	director *simtest.Host
	tty      bool
	plain    bool      // in its environment
	stdin    io.Reader // a pipe, if there is one
	stdout   io.Writer // instead of the buffer that run returns
}

// atTerminal runs a test where the environment names a director at director:61000, its MGMT port at director:61001,
// and good certificates.
func atTerminal(t *testing.T, test func(t *terminal)) {
	certs := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		t.Cleanup(n.Close)
		if _, err := identity.EnsureDevelopment(certs, time.Now()); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CONNECTION_SWAP_TLS_DIR", certs)
		t.Setenv("CONNECTION_SWAP_DIRECTOR_TARGET", "director:61000")
		t.Setenv("CONNECTION_SWAP_DIRECTOR_MGMT_ADDR", "director:61001")
		test(&terminal{T: t, net: n, client: n.Host("client"), director: n.Host("director")})
	})
}

// serve starts the director.
func (t *terminal) serve(play func(*fakedirector.Stream)) *fakedirector.Director {
	t.Helper()
	source, err := identity.FromDir(os.Getenv("CONNECTION_SWAP_TLS_DIR"), identity.Director)
	if err != nil {
		t.Fatal(err)
	}
	d := &fakedirector.Director{Network: t.director, Addr: ":61000", TLS: source, Play: play, ResumeWait: time.Minute}
	return d.Start(t)
}

// operate starts the director's MGMT port.
func (t *terminal) operate(answer func(*fakedirector.Operation) error) {
	t.Helper()
	source, err := identity.FromDir(os.Getenv("CONNECTION_SWAP_TLS_DIR"), identity.Director)
	if err != nil {
		t.Fatal(err)
	}
	m := fakedirector.Mgmt{Network: t.director, Addr: ":61001", TLS: source, Operate: answer}
	m.Start(t)
}

// run runs a command to its end.
func (t *terminal) run(args ...string) (code int, stdout, stderr string) {
	return t.runIn(t.Context(), args...)
}

func (t *terminal) runIn(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, notes bytes.Buffer
	p := cli.Process{Args: args, Stdout: &out, Stderr: &notes, Terminal: t.tty, Plain: t.plain, Stdin: t.stdin, Piped: t.stdin != nil, Network: t.client}
	if t.stdout != nil {
		p.Stdout = t.stdout
	}
	code = cli.Run(ctx, p)
	return code, out.String(), notes.String()
}
