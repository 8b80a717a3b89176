package simtest_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
)

func TestSameSeedSamePackets(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing can be repeated under the race detector")
	}
	seen := make(map[string]bool)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { seen[repeated(t, seed)] = true })
	}
	if len(seen) != 3 {
		t.Fatalf("3 seeds, different runs: %v", seen)
	}
}

// repeated runs a simulation until it has seen the same one three times, and returns its fingerprint. Mostly it
// takes three runs; but on an overloaded machine one in some hundred differs, since the Go scheduler takes
// the processor from a goroutine that seems to have had it for 10 ms.
func repeated(t *testing.T, seed uint64) string {
	t.Helper()
	runs := make(map[string]int)
	for range 7 {
		simtest.Repeatable(t, seed)
		f := exchange(t, seed)
		if runs[f]++; runs[f] == 3 {
			return f
		}
	}
	t.Fatalf("7 runs: %v", runs)
	return ""
}

func TestRepeatableIsUndone(t *testing.T) {
	procs := runtime.GOMAXPROCS(0)
	t.Run("", func(t *testing.T) { simtest.Repeatable(t, 1) })
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	if percent < 0 || runtime.GOMAXPROCS(0) != procs {
		t.Fatal("one processor, or no garbage collection, after the test")
	}
}

// exchange has three clients write on four streams each to a server that sends it all back, over a bad network and
// with a freeze. It returns the network's fingerprint.
func exchange(t *testing.T, seed uint64) (fingerprint string) {
	t.Helper()
	server, client := tlsConfigs()
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(seed, simtest.Options{Path: rough})
		defer n.Close()
		p := pair{t, n, n.Host("server"), nil}
		conf := longHandshake()
		conf.MaxIncomingStreams = 10
		l, err := quicnet.Listen(p.server, ":62001", server, conf)
		p.check(err)
		var serving, clients sync.WaitGroup
		serving.Go(func() { echoAll(l, &serving) })
		for i := range 3 {
			p.client = n.Host(fmt.Sprint("client-", i))
			conn, err := quicnet.Dial(t.Context(), p.client, "server:62001", client, longHandshake())
			p.check(err)
			clients.Go(func() { p.chat(conn) })
		}
		time.Sleep(200 * ms)
		p.client.Freeze()
		time.Sleep(100 * ms)
		p.client.Thaw()
		clients.Wait()
		p.check(l.Close())
		serving.Wait()
		fingerprint = n.Fingerprint()
	})
	return fingerprint
}

// longHandshake suits a network that loses much.
func longHandshake() *quic.Config {
	conf := quicnet.LinkConfig(100 * ms)
	conf.HandshakeIdleTimeout = time.Minute
	return conf
}

// echoAll sends everything back, on every stream of every connection.
func echoAll(l *quicnet.Listener, wg *sync.WaitGroup) {
	for {
		conn, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		wg.Go(func() {
			for {
				s, err := conn.AcceptStream(context.Background())
				if err != nil {
					return
				}
				wg.Go(func() {
					_, _ = io.Copy(s, s)
					_ = s.Close()
				})
			}
		})
	}
}

// chat writes on four streams and reads until all has come back. Nothing happens twice at the same instant.
func (p pair) chat(conn *quicnet.Conn) {
	var reading sync.WaitGroup
	for range 4 {
		s, err := conn.OpenStreamSync(p.Context())
		if err != nil {
			p.Error(err)
			return
		}
		reading.Go(func() {
			if n, err := io.Copy(io.Discard, s); n != 50*200 || err != nil {
				p.Errorf("%d bytes came back: %v", n, err)
			}
		})
		reading.Go(func() { mutter(s) })
		time.Sleep(1234567)
	}
	reading.Wait()
	_ = conn.Close(0, "")
}

// mutter writes a little now and then. Its period is an odd one: with 10 ms its ticks would fall on the very
// instants of QUIC's keep-alive, 100 ms after another tick, and which of the two comes first is left to chance.
func mutter(s *quic.Stream) {
	tick := time.NewTicker(10_137_211)
	defer tick.Stop()
	for range 50 {
		<-tick.C
		_, _ = s.Write(make([]byte, 200))
	}
	_ = s.Close()
}
