package worker_test

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// BenchmarkTokens is what a token costs from the engine to a director's QUIC stack over loopback, where the
// frames are counted and thrown away. The CPU time is that of both ends.
func BenchmarkTokens(b *testing.B) {
	b.Run("flat out, 64 sessions", func(b *testing.B) { benchTokens(b, 64, 0) })
	b.Run("1000 sessions every 20ms", func(b *testing.B) { benchTokens(b, 1000, 20*time.Millisecond) })
}

func benchTokens(b *testing.B, sessions int, interval time.Duration) {
	cfg := settings()
	cfg.TokenInterval = interval
	d := startDrain(b, cfg)
	each := b.N/sessions + 1
	b.ResetTimer()
	before := cpuTime(b)
	for id := range uint64(sessions) {
		m := attach(id, 1, uint32(each))
		m.ConnectionId = fmt.Sprintf("conn-%d", id/10)
		d.send(b, m)
	}
	d.wait(sessions)
	tokens := float64(each) * float64(sessions)
	b.ReportMetric(tokens/b.Elapsed().Seconds(), "tokens/s")
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/tokens, "cpu-ns/token")
}

// BenchmarkTakeover is how long a worker needs to take over the sessions of another: from the first Attach to
// the first token of the last session.
func BenchmarkTakeover(b *testing.B) {
	for _, tokens := range []int{0, 1000} {
		b.Run(fmt.Sprintf("1000 sessions after %d tokens", tokens), func(b *testing.B) { benchTakeover(b, 1000, tokens) })
	}
}

func benchTakeover(b *testing.B, sessions, tokens int) {
	cfg := settings()
	cfg.Engine = "counter" // goes on from any prefix
	d := startDrain(b, cfg)
	prefix := make([][]byte, tokens)
	for i := range prefix {
		prefix[i] = []byte(" the river"[:4+6*(i%2)]) // " the", " the river"
	}
	delivered := prefixOf(prefix)
	epoch := uint64(0)
	for b.Loop() {
		epoch++
		for id := range uint64(sessions) {
			m := attach(id, epoch, uint32(tokens+1))
			m.Prefix = delivered
			d.send(b, m)
		}
		d.wait(sessions)
	}
}

// drain is a director that only counts what ends.
type drain struct {
	control *quic.Stream
	ends    chan struct{}
}

// startDrain starts a worker on loopback and links to it; both last as long as the benchmark.
func startDrain(b *testing.B, cfg config.Worker) *drain {
	b.Helper()
	sources, err := identity.NewDevelopment(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	cfg.Directors = []string{"127.0.0.1:1"} // nobody
	cfg.UserAddr, cfg.MgmtAddr = freeAddr(b), "127.0.0.1:0"
	w, err := worker.New(cfg, worker.Deps{TLS: sources[identity.Worker]})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // b.Context ends before the cleanup
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Errorf("Run: %v", err)
		}
	})
	conn, err := dialSoon(ctx, cfg.UserAddr, sources[identity.Director])
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(wire.QUICShutdown, "") }) //nolint:errcheck // the benchmark is over
	control, err := conn.OpenStreamSync(ctx)
	if err != nil {
		b.Fatal(err)
	}
	hello := fakedirector.Hello()
	hello.TokenStreams = 4
	d := &drain{control: control, ends: make(chan struct{}, 1<<16)}
	for range hello.GetTokenStreams() {
		go d.count(ctx, conn)
	}
	d.send(b, hello)
	return d
}

func (d *drain) send(b *testing.B, m wire.Message) {
	b.Helper()
	if _, err := d.control.Write(wire.Append(nil, m)); err != nil {
		b.Fatal(err)
	}
}

// wait returns when n sessions more have ended.
func (d *drain) wait(n int) {
	for range n {
		<-d.ends
	}
}

func (d *drain) count(ctx context.Context, conn *quicnet.Conn) {
	stream, err := conn.AcceptUniStream(ctx)
	if err != nil {
		return
	}
	for frames := wire.NewReader(stream, wire.MaxControl); ; {
		f, err := frames.Next()
		if err != nil {
			return
		}
		if f.Type == wire.TypeEnd {
			d.ends <- struct{}{}
		}
	}
}

func dialSoon(ctx context.Context, addr string, src identity.Source) (conn *quicnet.Conn, err error) {
	for range 100 { // until the worker listens
		conn, err = quicnet.Dial(ctx, quicnet.OS{}, addr, identity.ClientTLS(src, wire.ALPNLink, identity.Worker), quicnet.LinkConfig(100*time.Millisecond))
		if err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("dialling the worker: %w", err)
}

// freeAddr is an address that was free a moment ago.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	return l.Addr().String()
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
