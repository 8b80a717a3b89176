package quicnet_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// ends are the TLS configurations of a director and its client.
func ends(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	sources, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return identity.ServerTLS(sources[identity.Director], []string{wire.ALPNClient}, nil),
		identity.ClientTLS(sources[identity.Client], wire.ALPNClient, identity.Director)
}

func serve(t *testing.T, nw quicnet.Network, tlsConf *tls.Config) (addr string, accepted <-chan *quic.Conn) {
	t.Helper()
	l, err := quicnet.Listen(nw, "127.0.0.1:0", tlsConf, quicnet.ServeClientsConfig(10))
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan *quic.Conn, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return l.Addr().String(), conns
}

func dial(t *testing.T, nw quicnet.Network, addr string, tlsConf *tls.Config) *quicnet.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := quicnet.Dial(ctx, nw, addr, tlsConf, quicnet.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(wire.QUICOk, ""); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func proof(t *testing.T, conn *quic.Conn) quicnet.Proof {
	t.Helper()
	p, err := quicnet.ReadProof(conn)
	if err != nil || len(p.ODCID) < 16 || len(p.Exporter) != 32 {
		t.Fatalf("proof %+v, %v", p, err)
	}
	return p
}

// TestProof dials twice: the two ends of a connection agree, two connections do not.
func TestProof(t *testing.T) {
	server, client := ends(t)
	addr, accepted := serve(t, quicnet.OS{}, server)
	one := dial(t, quicnet.OS{}, addr, client)
	oneThere := <-accepted
	two := dial(t, quicnet.OS{}, addr, client)
	twoThere := <-accepted
	first, second := proof(t, one.Conn), proof(t, two.Conn)
	if first != proof(t, oneThere) || second != proof(t, twoThere) {
		t.Error("the ends of a connection disagree")
	}
	if first.ODCID == second.ODCID || first.Exporter == second.Exporter {
		t.Errorf("two connections have the proof %v", first)
	}
	if first != proof(t, one.Conn) {
		t.Error("a connection's proof changed")
	}
}

// TestRefusedAfterDeath takes the peer's socket away: the kernel says so at the next packet.
func TestRefusedAfterDeath(t *testing.T) {
	socket, err := quicnet.OS{}.ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, remote, err := quicnet.OS{}.DialPacket(t.Context(), socket.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo([]byte("anybody there?"), remote); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.ReadFrom(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("read gives %v", err)
	}
}

// TestRefusedWhileDialling is why a worker that is not there costs no timeout.
func TestRefusedWhileDialling(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := socket.LocalAddr().String()
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	_, client := ends(t)
	_, err = quicnet.Dial(t.Context(), quicnet.OS{}, addr, client, quicnet.LinkConfig(100*time.Millisecond))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialling gives %v", err)
	}
}

// TestImpaired sends a megabyte through heavy loss, and nothing while everything is dropped.
func TestImpaired(t *testing.T) {
	server, client := ends(t)
	addr, accepted := serve(t, quicnet.OS{}, server)
	lossy := quicnet.Impair(quicnet.OS{}, 0.05)
	conn := dial(t, lossy, addr, client)
	there := <-accepted
	stream, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	const size = 1 << 20
	go func() {
		_, err := stream.Write(make([]byte, size))
		sent <- errors.Join(err, stream.Close())
	}()
	got, err := there.AcceptStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, got)
	if n != size || err != nil || <-sent != nil {
		t.Fatalf("%d bytes arrived, %v", n, err)
	}
	if conn.ConnectionStats().PacketsLost == 0 {
		t.Error("no packet got lost")
	}
	lossy.DropAll(true)
	before := there.ConnectionStats().PacketsReceived
	echo, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := echo.Write([]byte("nobody hears this")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := there.AcceptStream(ctx); err == nil || there.ConnectionStats().PacketsReceived > before+1 {
		t.Error("packets pass while all are dropped")
	}
}

func TestResolve(t *testing.T) {
	for addr, want := range map[string]string{"127.0.0.1:7": "127.0.0.1:7", "[::1]:7": "[::1]:7"} {
		got, err := quicnet.OS{}.Resolve(t.Context(), addr)
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s resolves to %v, %v", addr, got, err)
		}
	}
	if _, err := (quicnet.OS{}).Resolve(t.Context(), "no port"); err == nil {
		t.Error("an address without a port resolves")
	}
}
