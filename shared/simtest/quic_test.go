package simtest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/simtest"
)

// rough is a network on which nothing can be relied on.
var rough = simtest.Path{Delay: 10 * ms, Jitter: 5 * ms, Loss: 0.1, Reorder: 0.1, Duplicate: 0.02}

func TestQUICTransfersIntact(t *testing.T) {
	for _, path := range []simtest.Path{{Delay: 10 * ms}, rough} {
		n := transfer(t, 1, simtest.Options{Path: path}, 1<<20)
		t.Logf("%v: %+v", path, n.Stats())
	}
}

func TestQUICNoticesAKilledPeer(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		server, client := tlsConfigs()
		l, err := quicnet.Listen(p.server, ":62001", server, quicnet.LinkConfig(0))
		p.check(err)
		conn, err := quicnet.Dial(p.Context(), p.client, "server:62001", client, quicnet.LinkConfig(100*ms))
		p.check(err)
		peer, err := l.Accept(p.Context())
		p.check(err)
		time.Sleep(time.Second)
		p.server.Kill()
		start := time.Now()
		<-conn.Context().Done()
		if took := time.Since(start); took > 125*ms {
			t.Errorf("noticed after %v", took)
		}
		_, err = conn.AcceptStream(p.Context())
		p.wantError(err, syscall.ECONNREFUSED)
		_ = conn.Close(0, "")
		_ = peer.CloseWithError(0, "")
		_ = l.Close()
	})
}

// transfer sends size bytes from a client to a server over QUIC, checks them, and returns the network used.
func transfer(t *testing.T, seed uint64, opts simtest.Options, size int) *simtest.Net {
	t.Helper()
	server, client := tlsConfigs()
	var n *simtest.Net
	synctest.Test(t, func(t *testing.T) {
		n = simtest.New(seed, opts)
		defer n.Close()
		p := pair{t, n, n.Host("server"), n.Host("client")}
		l, err := quicnet.Listen(p.server, ":62001", server, quicnet.LinkConfig(0))
		p.check(err)
		sum := make(chan [sha256.Size]byte, 1)
		go func() { sum <- p.receive(l) }()

		conf := quicnet.LinkConfig(100 * ms)
		conf.HandshakeIdleTimeout = time.Minute
		conn, err := quicnet.Dial(t.Context(), p.client, "server:62001", client, conf)
		p.check(err)
		s, err := conn.OpenUniStreamSync(t.Context())
		p.check(err)
		data := bytes.Repeat([]byte("connswap"), size/8)
		_, err = s.Write(data)
		p.check(err)
		p.check(s.Close())
		if <-sum != sha256.Sum256(data) {
			t.Error("other bytes arrived than were sent")
		}
		p.check(conn.Close(quic.ApplicationErrorCode(0), ""))
		p.check(l.Close())
	})
	return n
}

// receive returns the hash of the first stream of the first connection.
func (p pair) receive(l *quicnet.Listener) [sha256.Size]byte {
	conn, err := l.Accept(p.Context())
	if err != nil {
		p.Error(err)
		return [sha256.Size]byte{}
	}
	s, err := conn.AcceptUniStream(p.Context())
	if err != nil {
		p.Error(err)
		return [sha256.Size]byte{}
	}
	all, err := io.ReadAll(s)
	if err != nil {
		p.Error(err)
	}
	return sha256.Sum256(all)
}

// tlsConfigs returns the server's and the client's. The certificate is the same one each time and holds in a
// bubble, where it is the year 2000.
func tlsConfigs() (server, client *tls.Config) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte("k"), ed25519.SeedSize))
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Unix(1<<33, 0),
		DNSNames:              []string{"server"},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	alpn := []string{"simtest"}
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}},
		NextProtos:   alpn, MinVersion: tls.VersionTLS13,
	}
	client = &tls.Config{RootCAs: pool, ServerName: "server", NextProtos: alpn, MinVersion: tls.VersionTLS13}
	return server, client
}
