package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
)

// follow reads events until enough says that it is.
func (a *api) follow(query, last string, enough func(happening) bool) []happening {
	a.t.Helper()
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	resp := a.send(ctx, http.MethodGet, "/v1/events"+query, "", "Last-Event-ID", last)
	defer resp.Body.Close()
	require.Equal(a.t, http.StatusOK, resp.StatusCode)
	all, _ := events(resp.Body, enough)
	return all
}

// TestEvents: an operator sees what becomes of a stream, in order, can go on where they were, and may ask for some only.
func TestEvents(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		a := s.api()
		o := s.generate(40, func(sequence uint64, worker string) {
			if sequence == 20 {
				p := s.worker(worker)
				p.die(p.host.Kill)
			}
		})
		require.NoError(t, o.err)
		finished := func(h happening) bool { return h.event == "stream.finished" }
		all := a.follow("", "0", finished)
		var kinds []string
		for i, h := range all {
			var e struct {
				ID           uint64    `json:"id"`
				Time         time.Time `json:"time"`
				Kind         string    `json:"kind"`
				ConnectionID string    `json:"connection_id"`
				StreamID     uint64    `json:"stream_id"`
			}
			require.NoError(t, json.Unmarshal([]byte(h.data), &e))
			require.Equal(t, h.id, fmt.Sprint(e.ID))
			require.Equal(t, uint64(i+1), e.ID)
			require.False(t, e.Time.IsZero())
			if strings.HasPrefix(e.Kind, "stream.") {
				require.Equal(t, s.conn.ID(), e.ConnectionID)
				require.EqualValues(t, 1, e.StreamID)
			}
			if e.Kind != "handover.entered" && !slices.Contains(kinds, e.Kind) {
				kinds = append(kinds, e.Kind)
			}
		}
		require.Equal(t, []string{
			"worker.up", "stream.opened", "handover.ended", "stream.placed", "worker.lost", "stream.moved", "stream.finished",
		}, ordered(kinds))
		rest := a.follow("", all[4].id, finished)
		require.Equal(t, all[5:], rest)
		streams := a.follow("?kind=stream.moved&kind=stream.finished&stream_id=1&connection_id="+s.conn.ID(), "0", finished)
		require.Len(t, streams, 2)
		require.Contains(t, streams[0].data, `"swap":"failover"`)
		lost := a.follow("?worker="+o.workers[0], "0", func(h happening) bool { return h.event == "worker.lost" })
		require.Contains(t, lost[len(lost)-1].data, "tether")
		_, err := s.operate().Drain(s.ctx, o.workers[len(o.workers)-1], time.Minute, true, nil)
		require.NoError(t, err)
		drained := a.follow("?kind=worker.draining", "0", func(happening) bool { return true })
		require.Contains(t, drained[0].data, "an operator asks for that")
		status, text := a.ask(http.MethodGet, "/v1/events", "", "Last-Event-ID", "x")
		require.Equal(t, http.StatusBadRequest, status, text)
	})
}

// ordered puts the end of the first handover, which comes with the placement, where it is expected.
func ordered(kinds []string) []string {
	if i := slices.Index(kinds, "stream.placed"); i > 0 && kinds[i-1] != "handover.ended" {
		kinds[i], kinds[i+1] = kinds[i+1], kinds[i]
	}
	return kinds
}

// metrics returns the value of each series of the project's own, by name and labels.
func (a *api) metrics() map[string]string {
	a.t.Helper()
	status, text := a.ask(http.MethodGet, "/metrics", "")
	require.Equal(a.t, http.StatusOK, status)
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "connswap_") {
			all[name] = value
		}
	}
	return all
}

// TestMetricsMove makes happen what each metric counts, and sees it move.
func TestMetricsMove(t *testing.T) {
	narrow := func(cfg *config.Director) { cfg.WindowTokens, cfg.MaxSessions, cfg.HTTP = 8, 40, "plain" }
	fast := func(cfg *config.Worker) { cfg.TokenInterval = 10 * time.Millisecond }
	far := setup{director: narrow, worker: fast}
	far.net.Path.Delay = 20 * time.Millisecond // so that a worker which is left has chunks on their way
	stage(t, far, func(t *testing.T, s *scenario) {
		a := s.api()
		before := a.metrics()
		client, director := s.net.Host("client"), s.net.Host("director")
		o := s.generate(3000, func(sequence uint64, worker string) {
			switch sequence {
			case 20:
				p := s.worker(worker)
				p.host.Freeze()
				time.AfterFunc(5*time.Second, p.host.Thaw)
			case 1000:
				s.wg.Go(func() { _, _ = s.operate().Swap(s.ctx, s.conn.ID(), 1, "") }) // it shows
			case 1500:
				cut(s.net, client, director)
				time.AfterFunc(10*time.Second, func() { heal(s.net, client, director) })
			case 2500:
				time.Sleep(3 * time.Second)
			}
		})
		require.NoError(t, o.err)
		require.Len(t, o.resumes, 1)
		during := a.metrics()
		cancelled, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 1000})
		require.NoError(t, err)
		time.Sleep(time.Second)
		cancelled.Close()
		time.Sleep(time.Second)
		for range 60 { // more than there is room for
			stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 1000})
			require.NoError(t, err)
			defer stream.Close()
		}
		time.Sleep(time.Second)
		web := s.front("client")
		defer web.close()
		refused, err := web.ask(http.MethodPost, "/v1/completions", map[string]string{"prompt": "p"})
		require.NoError(t, err)
		require.Equal(t, http.StatusTooManyRequests, refused.status)
		running := a.metrics()
		for name, test := range map[string]struct{ from, to map[string]string }{
			"connswap_streams_opened_total":                                                    {before, during},
			`connswap_streams_finished_total{state="done"}`:                                    {before, during},
			`connswap_streams_finished_total{state="cancelled"}`:                               {during, running},
			"connswap_streams_resumed_total":                                                   {before, during},
			"connswap_client_away_seconds_count":                                               {before, during},
			"connswap_chunks_total":                                                            {before, during},
			"connswap_tokens_total":                                                            {before, during},
			"connswap_chunks_fenced_total":                                                     {before, during},
			"connswap_first_token_seconds_count":                                               {before, during},
			"connswap_token_interval_seconds_count":                                            {before, during},
			"connswap_batch_seconds_count":                                                     {before, during},
			"connswap_credit_stalls_total":                                                     {before, during},
			`connswap_handover_gap_seconds_count{kind="failover"}`:                             {before, during},
			`connswap_handover_gap_seconds_count{kind="planned"}`:                              {before, during},
			`connswap_handover_state_seconds_count{kind="failover",state="TransferringState"}`: {before, during},
			"connswap_link_packets_sent_total":                                                 {before, during},
			`connswap_streams{state="streaming"}`:                                              {before, running},
			`connswap_http_requests_total{api="completions",status="429"}`:                     {before, running},
			`connswap_limits_hit_total{code="limit_exceeded"}`:                                 {during, running},
		} {
			if test.to[name] == "" || test.to[name] == test.from[name] {
				t.Errorf("%s: %q, and then %q", name, test.from[name], test.to[name])
			}
		}
		moved := func(prefix string) bool {
			for name, value := range during {
				if strings.HasPrefix(name, prefix) && value != before[name] {
					return true
				}
			}
			return false
		}
		for _, prefix := range []string{"connswap_handovers_total{", "connswap_worker_losses_total{"} {
			if !moved(prefix) {
				t.Errorf("nothing of %s has moved", prefix)
			}
		}
		for name := range running {
			if strings.Contains(name, "conn-") || strings.Contains(name, "worker-") || strings.Contains(name, "10.0.0.") {
				t.Errorf("an id is a label: %s", name)
			}
		}
		s.workers[0].die(s.workers[0].host.Kill)
		time.Sleep(15 * time.Second)
		if gone := a.metrics(); gone["connswap_links"] != "1" || gone["connswap_client_connections"] != "1" || running["connswap_links"] != "2" {
			t.Errorf("links %s, and %s; connections %s", running["connswap_links"], gone["connswap_links"], gone["connswap_client_connections"])
		}
	})
}

// TestMetricsOfAWorker: what a worker counts moves as it does it.
func TestMetricsOfAWorker(t *testing.T) {
	plain := func(cfg *config.Worker) { cfg.PlainStatus = true }
	stage(t, setup{worker: plain}, func(t *testing.T, s *scenario) {
		worker := s.workers[0]
		read := func() map[string]string {
			all := map[string]string{}
			for line := range strings.Lines(s.text("worker-0"+worker.cfg.MgmtAddr, "/metrics")) {
				if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "connswap_worker_") {
					all[name] = value
				}
			}
			return all
		}
		before := read()
		running := s.inBackground("a", 200)
		other := s.inBackground("b", 200) // one of them is there
		time.Sleep(time.Second)
		during := read()
		_, err := s.operate().Drain(s.ctx, "worker-0", time.Minute, false, nil)
		require.NoError(t, err)
		require.NoError(t, (<-running).err)
		require.NoError(t, (<-other).err)
		after := read()
		require.Len(t, before, 9, "%v", before)
		require.Equal(t, "1", during["connswap_worker_streams"])
		require.Equal(t, "0", after["connswap_worker_streams"])
		require.Equal(t, "1", during["connswap_worker_directors"])
		require.NotEqual(t, before["connswap_worker_chunks_total"], during["connswap_worker_chunks_total"])
		require.NotEqual(t, before["connswap_worker_attempts_total"], during["connswap_worker_attempts_total"])
		require.NotEqual(t, during["connswap_worker_attempts_cancelled_total"], after["connswap_worker_attempts_cancelled_total"])
		require.NotEqual(t, "0", during["connswap_worker_held_bytes"])
	})
}
