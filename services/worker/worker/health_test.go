package worker_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// TestHealthOfAHungWorker asks a worker that is alive, answers pings and HTTP, and does not work.
func TestHealthOfAHungWorker(t *testing.T) {
	run(t, failing("hang"), worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		<-b.mgmt.Heartbeats
		l.Send(t, attach(1, 1, 0))
		arrivals(l, time.Second)
		both := func(want int, says string) {
			t.Helper()
			for _, path := range []string{"/livez", "/readyz"} {
				start := time.Now()
				code, body := b.get(t, path)
				if code != want || !strings.Contains(body, says) || time.Since(start) > 2*time.Second {
					t.Errorf("%s: %d %q after %v", path, code, body, time.Since(start))
				}
			}
			conf := identity.ClientTLS(b.TLS[identity.Director], wire.ALPNMgmt, identity.Worker)
			reply, err := mgmt.Health(t.Context(), b.from, mgmtAddr, conf)
			if err != nil || reply.GetReady() != (want == http.StatusOK) {
				t.Errorf("over QUIC: %v, %v", reply, err)
			}
		}
		both(http.StatusOK, "ok")
		b.worker.FailNow()
		time.Sleep(10 * time.Millisecond)
		both(http.StatusServiceUnavailable, "links: the worker hangs")
		time.Sleep(10 * time.Second)
		both(http.StatusOK, "ok")
		l.Close()
		synctest.Wait()
	})
}

// TestStatusCountsLogLines has the worker tell what became of its log.
func TestStatusCountsLogLines(t *testing.T) {
	counts := telemetry.Counts{Lines: 4, Dropped: 3, Failed: 2, Sampled: 1}
	deps := worker.Deps{Log: zap.NewNop(), LogCounts: func() telemetry.Counts { return counts }}
	run(t, settings(), deps, func(t *testing.T, b *bench) {
		if got := b.status(t).Log; got != counts {
			t.Errorf("got %+v", got)
		}
	})
}
