package loopback

import (
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/identity"
)

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// TestHangup: a terminal that is closed ends no server; it looks at its certificates, and says what it found. Other signals
// that would end a process mean nothing.
func TestHangup(t *testing.T) {
	c := up(t)
	a := c.workers["worker-a"]
	for _, p := range []*process{c.director, a} {
		p.signal(t, syscall.SIGHUP)
		if line := p.line(t, "hangup signal: the certificates are those in use"); line["not_after"] == nil {
			t.Errorf("%v", line)
		}
		p.signal(t, syscall.SIGUSR2)
		p.line(t, "signal without a meaning here: ignored")
	}
	if err := os.Remove(filepath.Join(c.certs, "director.pem")); err != nil {
		t.Fatal(err)
	}
	c.director.signal(t, syscall.SIGHUP)
	if line := c.director.line(t, "hangup signal: the certificates cannot be used; the old ones stay"); !strings.Contains(line["error"].(string), "director.pem is missing") {
		t.Errorf("%v", line)
	}
	if _, err := identity.EnsureDevelopment(c.certs, time.Now()); err != nil {
		t.Fatal(err)
	}
	c.director.signal(t, syscall.SIGHUP)
	c.director.line(t, "certificates reloaded")
	c.many(t, 4)
	_, body := c.get(t, "worker-a", "/v1/status")
	var status struct{ Certificate identity.Expiry }
	if err := json.Unmarshal([]byte(body), &status); err != nil || time.Until(status.Certificate.NotAfter) < 300*24*time.Hour {
		t.Errorf("%v, %+v", err, status)
	}
	for _, p := range append([]*process{c.director}, a, c.workers["worker-b"]) {
		p.terminate(t)
	}
}

// TestClientHangup: the client says goodbye, so that its worker stops at once, as for SIGTERM; unless it is told not to mind.
func TestClientHangup(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("hangups are ignored here (nohup), and by whatever is started from here")
	}
	c := up(t)
	for name, test := range map[string]struct {
		command []string
		tokens  string
		code    int
	}{"closed": {nil, "100000", 130}, "nohup": {[]string{"nohup"}, "60", 0}} {
		t.Run(name, func(t *testing.T) {
			client := c.client(t, test.command, "generate", "--max-tokens", test.tokens, "The river")
			c.director.line(t, "worker assigned")
			client.signal(t, syscall.SIGHUP)
			err := <-client.exited
			if code := client.ProcessState.ExitCode(); code != test.code {
				t.Errorf("%v: exit code %d, want %d", err, code, test.code)
			}
		})
	}
	c.director.terminate(t)
	for _, w := range c.workers {
		w.terminate(t)
	}
}
