package simtest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/simtest"
)

func TestStreamsCarryBytesBothWays(t *testing.T) {
	for _, path := range []simtest.Path{
		{Delay: 10 * ms},
		{Delay: 10 * ms, Jitter: 20 * ms, Loss: 0.1, Reorder: 0.5, Duplicate: 0.5},
	} {
		simulate(t, simtest.Options{Path: path, Buffer: 10_000}, func(p pair) {
			p.echo()
			conn := p.dialStream().(interface {
				net.Conn
				CloseWrite() error
			})
			sent, received := sha256.New(), sha256.New()
			go func() {
				for i := range 200 {
					data := bytes.Repeat([]byte{byte(i)}, 1000+i)
					sent.Write(data)
					if _, err := conn.Write(data); err != nil {
						t.Error(err)
					}
				}
				if err := conn.CloseWrite(); err != nil {
					t.Error(err)
				}
			}()
			n, err := io.Copy(received, conn)
			p.check(err)
			if n != 200*1000+199*100 || !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
				t.Fatalf("%d bytes came back, other ones than sent", n)
			}
		})
	}
}

func TestStreamAddresses(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		l, err := p.server.ListenStream(":62001")
		p.check(err)
		client := p.dialStream()
		server, err := l.Accept()
		p.check(err)
		if a, ok := l.Addr().(*net.TCPAddr); !ok || a.String() != "10.0.0.1:62001" {
			t.Error(l.Addr())
		}
		if client.LocalAddr().String() != server.RemoteAddr().String() || server.LocalAddr().String() != "10.0.0.1:62001" {
			t.Error(client.LocalAddr(), server.RemoteAddr(), server.LocalAddr())
		}
		if _, ok := client.RemoteAddr().(*net.TCPAddr); !ok {
			t.Error(client.RemoteAddr())
		}
	})
}

func TestDialStreamTakesARoundTrip(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.echo()
		start := time.Now()
		conn := p.dialStream()
		if took := time.Since(start); took != 20*ms {
			t.Fatal(took)
		}
		_, err := conn.Write([]byte("hi"))
		p.check(err)
		if text, err, took := readTimed(conn); text != "hi" || err != nil || took != 20*ms {
			t.Fatal(text, err, took)
		}
	})
}

func TestDialStreamEndsWithItsContext(t *testing.T) {
	for name, fault := range map[string]func(pair){
		"isolated":     func(p pair) { p.server.Isolate() },
		"crashed":      func(p pair) { p.server.Crash() },
		"answers lost": func(p pair) { p.net.Cut(p.server, p.client) },
		"self frozen":  func(p pair) { p.client.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, simtest.Options{}, func(p pair) {
				p.echo()
				fault(p)
				ctx, cancel := context.WithTimeout(p.Context(), time.Second)
				defer cancel()
				_, err := p.client.DialStream(ctx, "server:62001")
				p.wantError(err, context.DeadlineExceeded)
			})
		})
	}
}

func TestADialOnACutPathSucceedsWhenItHeals(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.echo()
		p.net.Cut(p.client, p.server)
		time.AfterFunc(time.Second, func() { p.net.Heal(p.client, p.server) })
		start := time.Now()
		p.dialStream()
		if took := time.Since(start); took != time.Second+20*ms {
			t.Fatal(took)
		}
	})
}

func TestSilentPortsDoNotRefuseStreams(t *testing.T) {
	simulate(t, simtest.Options{Silent: true}, func(p pair) {
		ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
		defer cancel()
		_, err := p.client.DialStream(ctx, "server:62001")
		p.wantError(err, context.DeadlineExceeded)
	})
}

func TestACutStreamIsSilentAndHealsWhole(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.echo()
		conn := p.dialStream()
		_, err := conn.Write([]byte("under way, "))
		p.check(err)
		time.Sleep(5 * ms)
		p.net.Cut(p.client, p.server)
		_, err = conn.Write([]byte("sent while cut"))
		p.check(err)
		p.check(conn.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err, _ := readTimed(conn); !isTimeout(err) {
			t.Fatal(err)
		}
		p.check(conn.SetReadDeadline(time.Time{}))
		p.net.Heal(p.client, p.server)
		time.Sleep(time.Second)
		if text, err, _ := readTimed(conn); text != "under way, sent while cut" || err != nil {
			t.Fatal(text, err)
		}
	})
}

func TestAFrozenPeerIsConnectedAndSilent(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.echo()
		p.server.Freeze()
		conn := p.dialStream() // the machine answers for its stopped process
		_, err := conn.Write([]byte("hello"))
		p.check(err)
		p.check(conn.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err, _ := readTimed(conn); !isTimeout(err) {
			t.Fatal(err)
		}
		p.check(conn.SetReadDeadline(time.Time{}))
		p.server.Thaw()
		if text, err, took := readTimed(conn); text != "hello" || err != nil || took != 10*ms {
			t.Fatal(text, err, took)
		}
	})
}

func TestWriteWaitsForASlowReader(t *testing.T) {
	simulate(t, simtest.Options{Buffer: 1000}, func(p pair) {
		l, err := p.server.ListenStream(":62001")
		p.check(err)
		conn := p.dialStream()
		server, err := l.Accept()
		p.check(err)
		p.check(conn.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := conn.Write(make([]byte, 5000))
		if n != 1000 || !isTimeout(err) {
			t.Fatal(n, err)
		}
		p.check(conn.SetWriteDeadline(time.Time{}))
		wrote := make(chan error, 1)
		go func() { _, err := conn.Write(make([]byte, 4000)); wrote <- err }()
		_, err = io.ReadFull(server, make([]byte, 5000))
		p.check(err)
		p.check(<-wrote)
	})
}

func TestCloseOfAStream(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		l, err := p.server.ListenStream(":62001")
		p.check(err)
		conn := p.dialStream()
		server, err := l.Accept()
		p.check(err)
		_, err = conn.Write([]byte("last words"))
		p.check(err)
		p.check(conn.Close())
		p.wantError(conn.Close(), net.ErrClosed)
		_, err = conn.Read(make([]byte, 1))
		p.wantError(err, net.ErrClosed)
		_, err = conn.Write(nil)
		p.wantError(err, net.ErrClosed)
		p.wantError(conn.SetDeadline(time.Now()), net.ErrClosed)

		all, err := io.ReadAll(server)
		if string(all) != "last words" || err != nil {
			t.Fatal(all, err)
		}
		_, err = server.Write([]byte("are you there?"))
		p.check(err)
		time.Sleep(time.Second)
		_, err = server.Write([]byte("no"))
		p.wantError(err, syscall.EPIPE)
	})
}

func TestClosingAListenerResetsWhatWaits(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		l, err := p.server.ListenStream(":62001")
		p.check(err)
		conn := p.dialStream()
		p.check(l.Close())
		p.wantError(l.Close(), net.ErrClosed)
		_, err, _ = readTimed(conn)
		p.wantError(err, syscall.ECONNRESET)
		_, err = l.Accept()
		p.wantError(err, net.ErrClosed)
	})
}

func TestStreamReadDeadlineDuringRead(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		p.echo()
		conn := p.dialStream()
		errs := make(chan error, 1)
		go func() { _, err := conn.Read(make([]byte, 1)); errs <- err }()
		synctest.Wait()
		p.check(conn.SetDeadline(time.Unix(1, 0)))
		p.wantError(<-errs, os.ErrDeadlineExceeded)
	})
}

func TestHTTP(t *testing.T) {
	simulate(t, simtest.Options{}, func(p pair) {
		l, err := p.server.ListenStream(":61001")
		p.check(err)
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "from "+r.Host)
		})}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		tr := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return p.client.DialStream(ctx, addr)
		}}
		resp, err := (&http.Client{Transport: tr}).Get("http://server:61001/livez")
		p.check(err)
		body, err := io.ReadAll(resp.Body)
		p.check(err)
		p.check(resp.Body.Close())
		if string(body) != "from server:61001" {
			t.Fatalf("%q", body)
		}
		tr.CloseIdleConnections()
		p.check(srv.Shutdown(p.Context()))
		p.wantError(<-served, http.ErrServerClosed)
	})
}
