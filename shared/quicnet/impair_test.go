package quicnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
)

// TestImpairedAnswersFromWhereItWasAsked serves on all addresses of a host that has several: a peer whose socket is
// connected to one of them hears nothing that comes from another.
func TestImpairedAnswersFromWhereItWasAsked(t *testing.T) {
	server, client := ends(t)
	for name, nw := range map[string]quicnet.Network{
		"as it is": quicnet.OS{}, "impaired": quicnet.Impair(quicnet.OS{}, 0), "lossy": quicnet.Impair(quicnet.OS{}, 0.05),
	} {
		l, err := quicnet.Listen(nw, ":0", server, quicnet.ServeClientsConfig(10))
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			conn, err := quicnet.Dial(ctx, nw, net.JoinHostPort(host, port), client, quicnet.ClientConfig())
			if err != nil {
				t.Errorf("%s: %s does not answer: %v", name, host, err)
			} else if err := conn.Close(0, ""); err != nil {
				t.Error(err)
			}
			cancel()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestImpairedKeepsCapabilities compares what quic-go makes of a socket with and without impairment.
func TestImpairedKeepsCapabilities(t *testing.T) {
	server, client := ends(t)
	lossy := quicnet.Impair(quicnet.OS{}, 0.01)
	plain, _ := serve(t, quicnet.OS{}, server)
	impaired, _ := serve(t, lossy, server)
	want := dial(t, quicnet.OS{}, plain, client).ConnectionState().GSO
	if got := dial(t, lossy, impaired, client).ConnectionState().GSO; got != want {
		t.Errorf("GSO is %v, without impairment %v", got, want)
	}
	for _, nw := range []quicnet.Network{quicnet.OS{}, lossy} {
		served, err := nw.ListenPacket("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		dialled, _, err := nw.DialPacket(t.Context(), served.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, conn := range []net.PacketConn{served, dialled} {
			if _, ok := conn.(quic.OOBCapablePacketConn); !ok {
				t.Errorf("%T cannot say where a packet was sent to", conn)
			}
			if _, ok := conn.(interface{ SetWriteBuffer(n int) error }); !ok {
				t.Errorf("%T has no buffer that can be made larger", conn)
			}
		}
		if err := errors.Join(dialled.Close(), served.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestImpairedLosesPacketsNotWrites sends much at once: with GSO one write has many packets, of which some get lost.
func TestImpairedLosesPacketsNotWrites(t *testing.T) {
	server, client := ends(t)
	lossy := quicnet.Impair(quicnet.OS{}, 0.1)
	addr, accepted := serve(t, quicnet.OS{}, server)
	conn := dial(t, lossy, addr, client)
	there := <-accepted
	stream, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	const size = 2 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := stream.Write(make([]byte, size))
		sent <- errors.Join(err, stream.Close())
	}()
	got, err := there.AcceptStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, got); n != size || err != nil || <-sent != nil {
		t.Fatalf("%d bytes arrived, %v", n, err)
	}
	stats := conn.ConnectionStats()
	if share := float64(stats.PacketsLost) / float64(stats.PacketsSent); share < 0.03 || share > 0.3 {
		t.Errorf("%d of %d packets were lost", stats.PacketsLost, stats.PacketsSent)
	}
}
