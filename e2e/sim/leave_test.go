package sim

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/shared/config"
)

// TestHTTPClientLeaves: within 100 ms of a plain stream's client leaving its worker has nothing to do with it any more. One that may be
// resumed goes on.
func TestHTTPClientLeaves(t *testing.T) {
	plain := func(cfg *config.Director) { cfg.HTTP = "plain" }
	slow := func(cfg *config.Worker) { cfg.TokenInterval, cfg.PlainStatus = time.Second, true } // no token that could not be written tells of it
	stage(t, setup{director: plain, worker: slow}, func(t *testing.T, s *scenario) {
		running := func() (n int) { // by the workers' own word
			for _, w := range s.workers {
				var status struct{ Sessions []any }
				text := s.text(w.cfg.Label+":63001", "/v1/status")
				if err := json.Unmarshal([]byte(text), &status); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				n += len(status.Sessions)
			}
			return n
		}
		for header, left := range map[string]int{"": 0, "X-Connswap-Resume": 1} {
			f := s.front("web")
			ctx, leave := context.WithCancel(s.ctx)
			f.ctx = ctx
			resp, err := f.open(http.MethodPost, "/v1/completions", map[string]any{"prompt": "x", "stream": true}, cmp.Or(header, "X-Nothing"), "1")
			if err != nil {
				t.Fatal(err)
			}
			for lines := bufio.NewScanner(resp.Body); lines.Scan() && !strings.HasPrefix(lines.Text(), "data: "); {
			}
			if n := running(); n != 1 {
				t.Fatalf("%d sessions while it reads", n)
			}
			leave()
			f.close()
			_ = resp.Body.Close()
			s.sleep(100 * time.Millisecond)
			if n := running(); n != left {
				t.Errorf("%q: %d sessions after its client has left, want %d", header, n, left)
			}
			s.sleep(2 * time.Minute) // it is waited for no longer
			if n := running(); n != 0 {
				t.Errorf("%q: %d sessions are left", header, n)
			}
		}
	})
}
