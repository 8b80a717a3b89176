package monitor_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/monitor"
	"github.com/connswap/connswap/shared/simtest"
)

// TestAnswersMore: what a model answers beside text is part of what directors are told, and may change while the model stays the same.
func TestAnswersMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		defer network.Close()
		listener, err := network.Host("server").ListenStream(":8000")
		if err != nil {
			t.Fatal(err)
		}
		var embeds atomic.Bool
		scripted := servertest.New(servertest.OpenAI, servertest.Options{Model: "m"})
		front := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/embeddings" && !embeds.Load() {
				http.NotFound(w, r)
				return
			}
			scripted.ServeHTTP(w, r)
		})}
		var running sync.WaitGroup
		defer running.Wait()
		running.Go(func() { _ = front.Serve(listener) }) // until it is closed
		defer front.Close()                              //nolint:errcheck // the listener's, which is gone with its network
		server, err := api.New(api.Config{
			URL: "http://server:8000",
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				return network.Host("worker").DialStream(ctx, address)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		told := make(chan []string, 16)
		m := monitor.New(monitor.Config{
			Server: server, Where: "http://server:8000", Log: zap.NewNop(), Withhold: func(string) {},
			Serve: func(engines []*upstream.Engine) { told <- engines[0].Answers() },
			Engine: func(name string, report func(error)) *upstream.Engine {
				return upstream.New(server, upstream.Options{Name: name, Report: report})
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		running.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		defer stop()
		next := func() []string {
			select {
			case answers := <-told:
				return answers
			case <-time.After(10 * time.Minute): // of the bubble
				return []string{"nothing was told"}
			}
		}
		if first := next(); len(first) != 0 {
			t.Errorf("it answers %v", first)
		}
		time.Sleep(3 * time.Minute) // it is asked again and again
		if n := len(told); n != 0 {
			t.Errorf("told %d times that nothing has changed", n)
		}
		embeds.Store(true)
		if second := next(); !slices.Equal(second, []string{"embeddings"}) {
			t.Errorf("it answers %v", second)
		}
		if probes := m.Status().Probes; probes != 1 {
			t.Errorf("the model was measured %d times", probes)
		}
	})
}
