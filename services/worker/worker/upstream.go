package worker

import (
	"context"
	"net"

	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/services/worker/internal/upstream"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/monitor"
	"github.com/connswap/connswap/shared/config"
)

// beside is the inference server that the worker stands beside.
type beside struct {
	server  *api.Server
	monitor *monitor.Monitor
}

// newBeside returns what the engine upstream needs. Nothing is asked before the monitor runs.
func (w *Worker) newBeside() (*beside, error) {
	cfg := w.cfg.Server
	server, err := api.New(api.Config{
		URL: cfg.UpstreamURL, Kind: api.Kind(cfg.UpstreamKind),
		Key: func() (string, error) { return config.ReadKey(cfg.UpstreamKeyFile) },
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			return w.deps.Network.DialStream(ctx, address)
		},
		Timeouts: api.Timeouts{
			Connect: cfg.UpstreamConnect, Headers: cfg.UpstreamHeaders, First: cfg.UpstreamFirst, Silence: cfg.UpstreamSilence,
		},
	})
	if err != nil {
		return nil, err
	}
	offers, err := cfg.Offers()
	if err != nil {
		return nil, err
	}
	conf := monitor.Config{
		Server: server, Where: cfg.UpstreamURL, Log: w.deps.Log, Serve: w.serveEngines, Withhold: w.sessions.Withhold,
		Own: func() int { return w.sessions.Load().Sessions }, Chunks: w.sessions.Chunks,
		Engine: func(name string, report func(error)) *upstream.Engine {
			return upstream.New(server, upstream.Options{
				Name: name, MaxReplayTokens: cfg.MaxReplayTokens, Overlap: cfg.UpstreamOverlap, Report: report,
			})
		},
	}
	for _, o := range offers {
		conf.Offers = append(conf.Offers, monitor.Offer{Name: o.Name, At: o.At})
	}
	return &beside{server, monitor.New(conf)}, nil
}

// serveEngines makes the models of the inference server the worker's, and has the directors know.
func (w *Worker) serveEngines(engines []*upstream.Engine) {
	models := make([]session.Model, len(engines))
	for i, e := range engines {
		wrapped := w.wrapped[e]
		if wrapped == nil {
			wrapped = w.chaos.Engine(e)
			w.wrapped[e] = wrapped
		}
		models[i] = session.Model{Engine: wrapped}
	}
	w.sessions.SetModels(models)
	w.registrar.Renew()
}

// serverLine is the inference server in words for people; empty for none.
func (w *Worker) serverLine() string {
	if w.beside == nil {
		return ""
	}
	return w.beside.monitor.Line()
}

// Probe has the models of the inference server tried anew, if the worker stands beside one.
func (w *Worker) Probe() {
	if w.beside != nil {
		w.beside.monitor.Probe()
	}
}

// load is what a heartbeat says: the worker's sessions, and what else its inference server has to do.
func (w *Worker) load() int {
	own := w.sessions.Load().Sessions
	if w.beside == nil {
		return own
	}
	return own + w.beside.monitor.Others()
}
