package transfer

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

var (
	near  = simtest.Path{Delay: time.Millisecond}
	rough = simtest.Path{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.05, Reorder: 0.1, Duplicate: 0.02}
)

// paced lets four incompressible chunks pass in a second.
func paced() *rate.Limiter { return rate.NewLimiter(mib, 64*kib) }

func TestPull(t *testing.T) {
	tests := map[string]struct {
		state []byte
		path  simtest.Path
	}{
		"empty":        {nil, near},
		"one byte":     {[]byte{1}, near},
		"1 KiB":        {noise(kib), near},
		"a chunk":      {noise(chunkSize), near},
		"and one byte": {noise(chunkSize + 1), near},
		"1 MiB":        {noise(mib), near},
		"5 MiB":        {noise(5*mib - 3), near},
		"5 MiB, empty": {make([]byte, 5*mib), near},
		"rough":        {noise(mib + 5), rough},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			simulate(t, test.path, func(p *pair) {
				p.put(moving, compress(p, 42, test.state), time.Minute)
				snapshot, err := p.pull(1)
				require.NoError(p, err)
				requireState(p, test.state, snapshot)
				require.Equal(p, uint64(42), snapshot.Sequence())
				require.Equal(p, len(test.state), snapshot.Size())
				require.Equal(p, []uint32{0}, p.asked())
				require.Equal(p, chunksOf(len(test.state)), p.chunksSent())
				require.Zero(p, p.server.Store.Bytes(), "it has served")
				if test.path == near {
					p.requireClosed()
				}
			})
		})
	}
}

// A cut in the middle: the second connection asks for just what is missing.
func TestPullGoesOnAfterACut(t *testing.T) {
	for _, cut := range []time.Duration{500 * time.Millisecond, 3 * time.Second, 20 * time.Second} {
		t.Run(cut.String(), func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				p.server.Limiter = paced()
				state := noise(5 * mib)
				p.put(moving, compress(p, 1, state), time.Minute)
				wait := p.pulling(1)
				time.Sleep(2110 * time.Millisecond) // chunk 8 is on its way
				p.target.Isolate()
				time.Sleep(cut)
				p.target.Rejoin()
				snapshot, err := wait()
				require.NoError(p, err)
				requireState(p, state, snapshot)
				time.Sleep(10 * time.Second) // until the server has ended all streams
				asked, sent := p.asked(), p.chunksSent()
				p.Log(asked, sent)
				if cut < pullIdle {
					require.Equal(p, []uint32{0}, asked)
					require.Equal(p, 20, sent)
					return
				}
				require.Equal(p, []uint32{0, 8}, asked)
				require.LessOrEqual(p, sent, 21, "no chunk but the one under way is sent twice")
			})
		})
	}
}

// Again and again, and always a little further.
func TestPullGoesOnAfterManyCuts(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		state := noise(5 * mib)
		p.put(moving, compress(p, 1, state), time.Minute)
		wait := p.pulling(1)
		for range 4 {
			time.Sleep(1110 * time.Millisecond)
			p.target.Isolate()
			time.Sleep(3 * time.Second)
			p.target.Rejoin()
		}
		snapshot, err := wait()
		require.NoError(p, err)
		requireState(p, state, snapshot)
		require.Greater(p, len(p.asked()), 3)
		require.IsIncreasing(p, p.asked())
	})
}

func TestPullEndsWithItsContext(t *testing.T) {
	faults := map[string]func(p *pair){
		"killed":  func(p *pair) { p.source.Kill() },
		"crashed": func(p *pair) { p.source.Crash() },
		"cut":     func(p *pair) { p.target.Isolate() },
		"hanging": func(p *pair) { p.source.Freeze() },
		"slow":    func(p *pair) { p.server.Limiter.SetLimit(1) },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				p.server.Limiter = paced()
				p.put(moving, compress(p, 1, noise(5*mib)), time.Hour)
				start := time.Now()
				wait := p.pulling(1)
				time.Sleep(2110 * time.Millisecond)
				fault(p)
				_, err := wait()
				require.ErrorIs(p, err, context.DeadlineExceeded)
				require.Equal(p, time.Minute, time.Since(start).Truncate(time.Second))
				p.source.Thaw()
			})
		})
	}
}

// A source that starts again has lost its snapshots, and says so.
func TestSourceStartsAgain(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		p.put(moving, compress(p, 1, noise(5*mib)), time.Hour)
		wait := p.pulling(1)
		time.Sleep(2110 * time.Millisecond)
		p.source.Kill()
		time.Sleep(time.Second)
		p.newServer()
		p.source.Restart()
		p.restart()
		_, err := wait()
		requireCode(p, wire.CodeStateGone, err)
	})
}

// Nobody waits for a transfer that nobody wants any more.
func TestPullerGivesUp(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		p.put(moving, compress(p, 1, noise(5*mib)), time.Hour)
		ctx, cancel := context.WithCancel(p.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := p.puller.Pull(ctx, identity.Worker, fetch(token(1)))
		require.ErrorIs(p, err, context.Canceled)
		time.Sleep(100 * time.Millisecond)
		require.Len(p, p.sent.All(), 1, "the source has stopped")
		require.LessOrEqual(p, p.chunksSent(), 5)
	})
}

func TestLimiter(t *testing.T) {
	for _, burst := range []int{kib, 64 * kib, 100000} {
		t.Run(fmt.Sprint(burst), func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				p.server.Limiter = rate.NewLimiter(mib, burst)
				other := token(2)
				other.Session = 8
				p.holder.allow(other)
				p.put(moving, compress(p, 1, noise(3*mib)), 0)
				p.put(Key{"director-1", 8, false}, compress(p, 1, noise(3*mib)), 0)
				start := time.Now()
				wait := p.pulling(1)
				_, err := p.puller.Pull(p.Context(), identity.Worker, fetch(other))
				require.NoError(p, err)
				_, err = wait()
				require.NoError(p, err)
				took := time.Since(start)
				require.InDelta(p, 6, took.Seconds(), 0.3, "both share it")
			})
		})
	}
}

// The compressed bytes count.
func TestLimiterOfWhatIsSent(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = rate.NewLimiter(64*kib, 64*kib)
		p.put(moving, compress(p, 1, bytes.Repeat([]byte("connswap"), mib/2)), 0)
		start := time.Now()
		_, err := p.pull(1)
		require.NoError(p, err)
		require.Less(p, time.Since(start), time.Second)
	})
}

// raw opens a stream by hand.
func (p *pair) raw(number byte, first uint32) (*quicnet.Conn, *wire.Reader) {
	tlsConf := identity.ClientTLS(p.puller.cfg.TLS, wire.ALPNMgmt, identity.Worker)
	conn, err := quicnet.Dial(p.Context(), p.target, addr, tlsConf, quicnet.MgmtConfig(time.Minute))
	require.NoError(p, err)
	p.Cleanup(func() { _ = conn.Close(wire.QUICOk, "") })
	stream, err := conn.OpenStreamSync(p.Context())
	require.NoError(p, err)
	ask := &wirepb.Pull{Secret: token(number).GetSecret(), Puller: "target", FirstChunk: first}
	_, err = stream.Write(wire.Append(nil, ask))
	require.NoError(p, err)
	return conn, wire.NewReader(stream, maxFrame)
}

// Somebody who never reads, or never says that it is done, holds the source up only for so long.
func TestIdlePullers(t *testing.T) {
	for _, size := range []int{kib, 64 * mib} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				p.put(moving, compress(p, 1, noise(size)), 0)
				conn, _ := p.raw(1, 0)
				time.Sleep(stallTimeout + 2*time.Second)
				require.Len(p, p.sent.All(), 1)
				require.NoError(p, conn.Context().Err(), "the connection is for others too")
			})
		})
	}
}

// The role of the source is checked, and a wrong one is not what a transfer ends at: certificates change.
func TestRoleOfTheSource(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.put(moving, compress(p, 1, noise(kib)), 0)
		ctx, cancel := context.WithTimeout(p.Context(), 5*time.Second)
		defer cancel()
		_, err := p.puller.Pull(ctx, identity.Director, fetch(token(1)))
		require.ErrorIs(p, err, context.DeadlineExceeded)
		require.ErrorContains(p, err, "want that of a director")
		require.Empty(p, p.asked())
	})
}
