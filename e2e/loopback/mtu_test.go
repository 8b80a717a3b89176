// Package loopback has tests of what only real sockets have.
package loopback

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// narrow is a network whose path can be made to drop large datagrams without a word.
type narrow struct {
	quicnet.OS

	most    atomic.Int64 // bytes of a datagram that arrives; 0 for all
	largest atomic.Int64 // datagram so far
	dropped atomic.Int64 // datagrams
}

func (n *narrow) ListenPacket(addr string) (net.PacketConn, error) {
	conn, err := n.OS.ListenPacket(addr)
	return n.wrap(conn), err
}

func (n *narrow) DialPacket(ctx context.Context, addr string) (net.PacketConn, net.Addr, error) {
	conn, remote, err := n.OS.DialPacket(ctx, addr)
	return n.wrap(conn), remote, err
}

// wrap keeps what quic-go needs for path MTU discovery.
func (n *narrow) wrap(conn net.PacketConn) net.PacketConn {
	if full, ok := conn.(socket); ok {
		return narrowConn{full, n}
	}
	return conn
}

type socket interface {
	quic.OOBCapablePacketConn
	net.Conn
	SetWriteBuffer(n int) error
}

type narrowConn struct {
	socket

	net *narrow
}

func (c narrowConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	size := int64(len(b))
	if most := c.net.most.Load(); most > 0 && size > most {
		c.net.dropped.Add(1)
		return len(b), len(oob), nil
	}
	c.net.largest.Store(max(size, c.net.largest.Load()))
	return c.socket.WriteMsgUDP(b, oob, addr)
}

// TestPathBecomesNarrow has the path between a director and its only worker stop carrying datagrams above 1252 bytes, after
// both have found out that larger ones pass. A long prompt then does not arrive; the link notices, and the next one begins
// with small packets.
func TestPathBecomesNarrow(t *testing.T) {
	t.Setenv("QUIC_GO_DISABLE_GSO", "true") // so that each datagram is a write of its own
	sources, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	path := &narrow{}
	dcfg := config.DefaultDirector()
	dcfg.ID = "director"
	dcfg.UserAddr, dcfg.MgmtAddr = "127.0.0.1:0", "127.0.0.1:0"
	d, err := director.New(dcfg, director.Deps{Network: path, TLS: sources[identity.Director], Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	wcfg := config.DefaultWorker()
	wcfg.Label = "worker-a"
	wcfg.UserAddr, wcfg.MgmtAddr, wcfg.Engine = "127.0.0.1:0", "127.0.0.1:0", "counter"
	wcfg.FailureMin, wcfg.FailureMax, wcfg.TokenInterval = time.Hour, time.Hour, 10*time.Millisecond
	wcfg.Directors = []string{d.MgmtAddr().String()}
	w, err := worker.New(wcfg, worker.Deps{Network: path, TLS: sources[identity.Worker], Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- d.Run(ctx) }()
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	conn, err := connswap.Dial(ctx, d.UserAddr().String(), connswap.Options{TLS: sources[identity.Client]})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	long := strings.Repeat("tale ", 4<<10)
	generate := func() (tokens uint64, took time.Duration) {
		t.Helper()
		start := time.Now()
		stream, err := conn.Generate(ctx, connswap.Request{Prompt: long, MaxTokens: 5})
		if err != nil {
			t.Fatal(err)
		}
		for event, err := range stream.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if token, ok := event.(connswap.Token); ok {
				tokens = token.Sequence
			}
		}
		return tokens, time.Since(start)
	}
	for path.largest.Load() <= 1252 { // until discovery has found a larger packet to pass
		if generate(); t.Context().Err() != nil {
			t.Fatal("no larger packets are sent")
		}
	}
	path.most.Store(1252)
	for range 2 {
		if tokens, took := generate(); tokens != 5 {
			t.Errorf("%d tokens after %v", tokens, took)
		} else {
			t.Logf("took %v", took)
		}
	}
}
