package transfer

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// connections counts those that the source has seen so far.
func (p *pair) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	different := make(map[any]bool)
	for _, conn := range p.conns {
		different[conn] = true
	}
	return len(different)
}

// putAndPull has a snapshot of its own pulled.
func (p *pair) putAndPull(number byte) {
	p.Helper()
	p.put(moving, compress(p, 1, noise(kib)), time.Minute)
	_, err := p.pull(number)
	require.NoError(p, err)
}

// Pulls from one peer share a connection, for as long as it is used now and then.
func TestPullsShareAConnection(t *testing.T) {
	simulate(t, near, func(p *pair) {
		for number := range byte(5) {
			p.putAndPull(number)
			time.Sleep(connIdleTimeout - time.Second)
		}
		require.Equal(p, 1, p.connections())
		p.requireClosed()
		p.putAndPull(5)
		require.Equal(p, 2, p.connections())
		p.puller.Close()
		time.Sleep(10 * time.Millisecond)
		require.Error(p, p.conns[5].Context().Err(), "the connection is open")
	})
}

// A refusal, and a pull that is given up, leave the connection to the others.
func TestPullsLeaveTheConnection(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		p.put(moving, compress(p, 1, noise(2*mib)), time.Minute)
		p.put(checkpoint, compress(p, 1, noise(2*mib)), time.Minute)
		wait := p.pulling(1)
		time.Sleep(100 * time.Millisecond)
		short, cancel := context.WithTimeout(p.Context(), time.Second)
		defer cancel()
		_, err := p.puller.Pull(short, identity.Worker, fetch(token(2)))
		require.ErrorIs(p, err, context.DeadlineExceeded)
		bad := fetch(token(3))
		bad.Token.Secret = nil
		_, err = p.puller.Pull(p.Context(), identity.Worker, bad)
		requireCode(p, wire.CodeTokenMissing, err)
		_, err = wait()
		require.NoError(p, err)
		require.Equal(p, 1, p.connections())
		require.Equal(p, []uint32{0, 0, 0}, p.asked())
	})
}

// A peer that starts again is dialled again, whether or not the connection to it is known to be lost.
func TestPullFromAPeerThatStartedAgain(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, connIdleTimeout / 2, time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				open := &sockets{Network: p.puller.cfg.Network}
				p.puller.cfg.Network = open
				p.putAndPull(1)
				p.source.Kill()
				time.Sleep(after)
				p.newServer()
				p.source.Restart()
				p.restart()
				p.putAndPull(2)
				require.Equal(p, 2, p.connections())
				require.Equal(p, 1, int(open.now.Load()), "open sockets")
				time.Sleep(connIdleTimeout + 10*time.Millisecond)
				require.Zero(p, open.now.Load(), "open sockets")
			})
		})
	}
}

// sockets counts those that are open.
type sockets struct {
	quicnet.Network

	now atomic.Int64
}

func (s *sockets) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	conn, remote, err := s.Network.DialPacket(ctx, addr)
	if err == nil {
		s.now.Add(1)
	}
	return &socket{conn, s}, remote, err
}

type socket struct {
	net.PacketConn
	of *sockets
}

func (s *socket) Close() error {
	s.of.now.Add(-1)
	return s.PacketConn.Close()
}

// However many states are on their way, a few come at a time, in the end all, and one that is not wanted any more does
// not wait for the others.
func TestPullsTakeTurns(t *testing.T) {
	simulate(t, near, func(p *pair) {
		var most, now int
		end := make(chan struct{})
		p.handle = func(s mgmt.Stream, ask *wirepb.Pull) error {
			p.mu.Lock()
			now++
			most = max(most, now)
			p.mu.Unlock()
			<-end
			p.mu.Lock()
			now--
			p.mu.Unlock()
			return p.server.Serve(s.Context(), s, ask)
		}
		p.put(checkpoint, compress(p, 1, noise(kib)), time.Hour)
		var pulls sync.WaitGroup
		for number := range byte(3 * pullsAtOnce) {
			pulls.Go(func() {
				_, err := p.pull(number)
				require.NoError(p, err)
			})
		}
		synctest.Wait()
		time.Sleep(time.Second)
		require.Len(p, p.asked(), pullsAtOnce)
		short, cancel := context.WithTimeout(p.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := p.puller.Pull(short, identity.Worker, fetch(token(100)))
		require.ErrorIs(p, err, context.DeadlineExceeded)
		require.Equal(p, time.Second, time.Since(start))
		close(end)
		pulls.Wait()
		require.Len(p, p.asked(), 3*pullsAtOnce)
		require.LessOrEqual(p, most, pullsAtOnce)
	})
}
