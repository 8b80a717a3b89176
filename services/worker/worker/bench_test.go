package worker_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
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

func benchTokens(b *testing.B, sessions uint64, interval time.Duration) {
	sources, err := identity.NewDevelopment(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	cfg := settings()
	cfg.Directors = []string{"127.0.0.1:1"} // nobody
	cfg.UserAddr, cfg.MgmtAddr = freeAddr(b), "127.0.0.1:0"
	cfg.TokenInterval = interval
	w, err := worker.New(cfg, worker.Deps{TLS: sources[identity.Worker]})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			b.Errorf("Run: %v", err)
		}
	}()

	conn, err := dialSoon(ctx, cfg.UserAddr, sources[identity.Director])
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(wire.QUICShutdown, "") //nolint:errcheck // the benchmark is over
	control, err := conn.OpenStreamSync(ctx)
	if err != nil {
		b.Fatal(err)
	}
	hello := fakedirector.Hello()
	hello.TokenStreams = 4
	ends := make(chan int)
	for range hello.GetTokenStreams() {
		go func() { ends <- countEnds(ctx, conn, sessions/uint64(hello.GetTokenStreams())) }()
	}
	if _, err := control.Write(wire.Append(nil, hello)); err != nil {
		b.Fatal(err)
	}

	each := uint32(uint64(b.N)/sessions + 1)
	b.ResetTimer()
	before := cpuTime(b)
	for id := range sessions {
		if _, err := control.Write(wire.Append(nil, attach(id, 1, each))); err != nil {
			b.Fatal(err)
		}
	}
	for range hello.GetTokenStreams() {
		<-ends
	}
	tokens := float64(each) * float64(sessions)
	b.ReportMetric(tokens/b.Elapsed().Seconds(), "tokens/s")
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/tokens, "cpu-ns/token")
}

// countEnds reads a token stream until n sessions have ended on it.
func countEnds(ctx context.Context, conn *quicnet.Conn, n uint64) int {
	stream, err := conn.AcceptUniStream(ctx)
	if err != nil {
		return 0
	}
	frames := wire.NewReader(stream, wire.MaxControl)
	for ended := uint64(0); ended < n; {
		f, err := frames.Next()
		if err != nil {
			return 0
		}
		if f.Type == wire.TypeEnd {
			ended++
		}
	}
	go io.Copy(io.Discard, stream) //nolint:errcheck // until the connection ends
	return 1
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
