package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
)

// cluster is one director and its workers, in a synctest bubble.
type cluster struct {
	resumed  atomic.Uint64 // streams that went on over another QUIC connection
	overHTTP atomic.Uint64 // streams that were read over HTTP, to their end
	again    atomic.Uint64 // how often one of these was taken up again
	t        *testing.T
	trace    func(format string, args ...any)
	net      *simtest.Net
	sources  map[identity.Role]identity.Source
	named    func(role identity.Role, names ...string) (identity.Source, error) // another certificate
	director *simtest.Host
	workers  []*process
	network  func(quicnet.Network) quicnet.Network // of the director; nil for its host's own
	engine   engine.Engine                         // of the workers; nil for the configured one
	key      string                                // of clients that dial
	strict   bool                                  // errors in logs are violations
	logged   messages                              // of the director

	killDirector  func() // as kill -9 does; direct starts another one
	stopDirector  func() // as SIGTERM does; it does not wait
	hurryDirector func() // as the second one does

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// process is a worker and the host that it runs on.
type process struct {
	cluster *cluster
	tls     identity.Source
	host    *simtest.Host
	cfg     config.Worker

	mu     sync.Mutex     // never held while anything waits
	worker *worker.Worker // nil while dead
	end    context.CancelFunc
	ended  chan struct{}
}

func newCluster(t *testing.T, seed uint64, opts simtest.Options, trace func(string, ...any)) *cluster {
	named, sources, err := identity.NewNamed(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	opts.Trace = trace
	c := &cluster{t: t, trace: trace, net: simtest.New(seed, opts), sources: sources, named: named}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.director = c.net.Host("director")
	return c
}

// close ends everything; what is left running then, the bubble reports.
func (c *cluster) close() {
	c.stop()
	c.wg.Wait()
	c.net.Close()
}

// logger traces what a node logs. Where the cluster is strict, an error in a log is a defect: nodes of ours break no
// promise that another one would have to complain about.
func (c *cluster) logger(name string) *zap.Logger {
	level, out := zapcore.WarnLevel, io.Discard
	if c.trace != nil {
		start := time.Now()
		level, out = zapcore.DebugLevel, writerFunc(func(p []byte) {
			c.trace("%12v  %s: %s", time.Since(start), name, strings.TrimSuffix(string(p), "\n"))
		})
	}
	enc := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "m", LevelKey: "l", EncodeLevel: zapcore.CapitalLevelEncoder, ConsoleSeparator: " "})
	return zap.New(zapcore.NewCore(enc, zapcore.AddSync(out), level), zap.Hooks(func(e zapcore.Entry) error {
		if c.strict && e.Level >= zapcore.ErrorLevel {
			c.t.Errorf("%s logs an error: %s", name, e.Message)
		}
		if name == "director" {
			c.logged.add(e.Message)
		}
		return nil
	}))
}

// messages counts what was logged.
type messages struct {
	mu   sync.Mutex
	seen []string
}

func (m *messages) add(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = append(m.seen, message)
}

// count returns how many messages have the words.
func (m *messages) count(words string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, message := range m.seen {
		if strings.Contains(message, words) {
			n++
		}
	}
	return n
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// direct starts the director.
func (c *cluster) direct(change func(*config.Director)) {
	cfg := config.DefaultDirector()
	cfg.ID, cfg.PlainStatus = "director", true
	if change != nil {
		change(&cfg)
	}
	var nw quicnet.Network = c.director
	if c.network != nil {
		nw = c.network(nw)
	}
	ctx, end := context.WithCancel(c.ctx) // a run's end waits for no stream
	serving, stop := context.WithCancel(ctx)
	c.stopDirector, c.hurryDirector = stop, end
	d, err := director.New(cfg, director.Deps{
		Network: nw, TLS: c.sources[identity.Director], Log: c.logger("director"), Hurry: ctx,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	var killed atomic.Bool
	c.killDirector = func() {
		killed.Store(true)
		c.director.Kill()
		end()
		<-ended
		c.director.Restart()
	}
	c.wg.Go(func() {
		defer close(ended)
		defer end()
		if err := d.Run(serving); err != nil && !killed.Load() {
			c.t.Errorf("director: %v", err)
		}
	})
}

// work starts another worker.
func (c *cluster) work(change func(*config.Worker)) *process {
	cfg := config.DefaultWorker()
	cfg.Label = fmt.Sprintf("worker-%d", len(c.workers))
	cfg.Directors = []string{"director:61001"}
	if change != nil {
		change(&cfg)
	}
	return c.workAs(c.sources[identity.Worker], cfg.Label, cfg)
}

// workAs starts a worker with a certificate on a host.
func (c *cluster) workAs(tls identity.Source, host string, cfg config.Worker) *process {
	p := &process{cluster: c, tls: tls, host: c.net.Host(host), cfg: cfg}
	c.workers = append(c.workers, p)
	p.start()
	return p
}

func (p *process) start() {
	c := p.cluster
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.worker != nil || c.ctx.Err() != nil {
		return
	}
	w, err := worker.New(p.cfg, worker.Deps{
		Network: p.host, TLS: p.tls, Log: c.logger(p.cfg.Label), Engine: c.engine,
		Die: func() { c.wg.Go(p.dieAndRestart) },
	})
	if err != nil {
		c.t.Errorf("%s: %v", p.cfg.Label, err)
		return
	}
	ctx, end := context.WithCancel(c.ctx)
	ended := make(chan struct{})
	p.worker, p.end, p.ended = w, end, ended
	c.wg.Go(func() {
		defer close(ended)
		if err := w.Run(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			c.t.Errorf("%s: %v", p.cfg.Label, err)
		}
	})
}

// die ends the process; gone is what takes its host off the network, before the process could say anything.
func (p *process) die(gone func()) {
	if w, end, ended := p.current(); w != nil {
		gone()
		end()
		<-ended
		p.buried(w)
	}
}

// stop ends the process as SIGTERM does: it can still speak.
func (p *process) stop() { p.die(func() {}) }

func (p *process) current() (*worker.Worker, context.CancelFunc, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.worker, p.end, p.ended
}

// buried notes that a process has ended. Several may have waited for that.
func (p *process) buried(w *worker.Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.worker == w {
		p.worker = nil
	}
}

func (p *process) restart() {
	p.host.Restart()
	p.start()
}

func (p *process) dieAndRestart() {
	p.die(p.host.Kill)
	p.cluster.sleep(p.cfg.FailureRecovery)
	p.restart()
}

func (p *process) failNow() {
	p.mu.Lock()
	w := p.worker
	p.mu.Unlock()
	if w != nil {
		w.FailNow()
	}
}

// sleep waits unless the run ends before.
func (c *cluster) sleep(d time.Duration) {
	select {
	case <-c.ctx.Done():
	case <-time.After(d):
	}
}

// dial connects a client from a host of its own.
func (c *cluster) dial(host string) (*connswap.Conn, error) {
	for {
		ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
		conn, err := connswap.Dial(ctx, "director:61000", connswap.Options{Network: c.net.Host(host), TLS: c.sources[identity.Client], Key: c.key})
		cancel()
		if err == nil || c.ctx.Err() != nil || !lossy(err) {
			return conn, err
		}
	}
}

// lossy reports whether a dial may have failed because packets got lost.
func lossy(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, &connswap.Error{Code: connswap.CodeLost})
}

// status asks the director's MGMT port, over HTTP, as a person would.
func (c *cluster) status(path string, into any) error {
	operator := c.net.Host("operator")
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return operator.DialStream(ctx, addr) },
	}
	return mgmt.Get(context.Background(), transport, "http://director:61001"+path, into)
}
