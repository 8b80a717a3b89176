package sim

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/simtest"
)

// TestCertificatesExpire: it is said before, in the log and where health is asked for; the processes are unhealthy only when
// nothing can connect any more, and what runs goes on.
func TestCertificatesExpire(t *testing.T) {
	const life = 365 * 24 * time.Hour
	for name, test := range map[string]struct {
		left time.Duration
		want string
	}{
		"in time": {15 * 24 * time.Hour, "ok\n"},
		"soon":    {10*24*time.Hour - time.Minute, "ok; the certificate expires in 10 days\n"},
		"today":   {time.Minute, "ok; the certificate expires in 1m0s\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}}, nil)
				defer c.close()
				time.Sleep(life - test.left)
				c.direct(nil)
				p := c.work(func(cfg *config.Worker) { cfg.TokenInterval, cfg.Engine = interval, "counter" })
				time.Sleep(time.Second)
				for _, host := range []string{"director:61001", p.cfg.Label + ":63001"} {
					if got := c.text(host, "/readyz"); got != test.want {
						t.Errorf("%s says %q, want %q", host, got, test.want)
					}
				}
				warned := c.logged.count("the certificate expires in") > 0
				if warned != (test.left < 14*24*time.Hour) {
					t.Errorf("warned: %v", warned)
				}
				conn, err := c.dial("client")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close() //nolint:errcheck // the run is over
				if test.left > time.Hour {
					return
				}
				stream, err := conn.Generate(c.ctx, connswap.Request{Prompt: "p", MaxTokens: uint32(2 * time.Minute / interval), Seed: 7})
				if err != nil {
					t.Fatal(err)
				}
				if o := readStream(stream, nil); o.err != nil { // beyond the end of the certificate
					t.Errorf("after %d tokens: %v", o.tokens, o.err)
				}
				for _, host := range []string{"director:61001", p.cfg.Label + ":63001"} {
					if got := c.text(host, "/healthz"); !strings.HasPrefix(got, "503 the certificate expired at ") {
						t.Errorf("%s says %q", host, got)
					}
					if got := c.text(host, "/livez"); got != "ok\n" {
						t.Errorf("%s says %q", host, got)
					}
				}
			})
		})
	}
}

// text asks for something over HTTP. What is no success begins with its number.
func (c *cluster) text(addr, path string) string {
	operator := c.net.Host("operator")
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return operator.DialStream(ctx, addr) },
	}}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return strings.TrimSuffix(resp.Status, " "+http.StatusText(resp.StatusCode)) + " " + string(body)
	}
	return string(body)
}
