package metrics_test

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/services/director/internal/metrics"
	"github.com/connswap/connswap/shared/migration"
)

// TestLint: names, units and help are as Prometheus wants them.
func TestLint(t *testing.T) {
	m := metrics.New(func() metrics.Load {
		return metrics.Load{
			Streams: map[string]int{"streaming": 1}, Workers: map[string]int{"ready": 1},
			Keys: []metrics.Key{{Name: "a", Requests: 1, PromptTokens: 2, CompletionTokens: 3}, {Name: "b"}},
		}
	})
	m.Observe(event.Event{Body: event.StreamMoved{Swap: "failover"}})
	m.Observe(event.Event{Body: event.StreamFinished{State: "done"}})
	m.Observe(event.Event{Body: event.WorkerLost{Cause: "tether: closed"}})
	m.Observe(event.Event{Body: event.TokenRefused{Code: "token_unknown"}})
	m.Observe(event.Event{Body: event.LimitHit{Code: "limit_exceeded"}})
	m.Observe(event.Event{Body: event.HandoverEnded{Record: migration.Record{Kind: "planned", State: "Completed", StateMS: map[string]float64{"Pivoting": 1}}}})
	m.Batch(1, 2, time.Millisecond)
	m.Answered("responses", 200)
	m.Reloaded("config", errors.New("line 3"))
	m.Reloaded("config", nil)
	problems, err := testutil.GatherAndLint(m.Registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	for name, want := range map[string]int{
		"connswap_worker_losses_total": 1, "connswap_migration_tokens_refused_total": 1, "connswap_handovers_total": 1,
		"connswap_http_requests_total": 1, "connswap_key_requests_total": 2, "connswap_key_tokens_total": 4,
		"connswap_config_reloads_total": 4, // those that are 0 too: an alert is for the first one
	} {
		n, err := testutil.GatherAndCount(m.Registry, name)
		require.NoError(t, err)
		require.Equal(t, want, n, name)
	}
}

func BenchmarkBatch(b *testing.B) {
	m := metrics.New(nil)
	for b.Loop() {
		m.Batch(16, 16, 50*time.Microsecond)
	}
}
