package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// evil is the attacker's address.
var evil = from{ip: net.IPv4(127, 0, 0, 66)}

// attacker is one who has a client's certificate at most.
type attacker struct {
	user, mgmt string
	tls        identity.Source
	stranger   identity.Source // of another authority
}

// attacks are what is tried, by name. Each goes on until ctx ends; what it opens is bounded.
var attacks = map[string]func(a *attacker, ctx context.Context){
	"half-open":   (*attacker).halfOpen,
	"idle":        (*attacker).idle,
	"unread":      (*attacker).unread,
	"prompts":     (*attacker).prompts,
	"initials":    (*attacker).initials,
	"kept-alive":  (*attacker).keptAlive,
	"slow-read":   (*attacker).slowRead,
	"web-bodies":  (*attacker).webBodies,
	"web-garbage": (*attacker).webGarbage,
	"web-half":    (*attacker).webHalf,
	"web-headers": (*attacker).webHeaders,
	"web-idle":    (*attacker).webIdle,
	"web-reset":   (*attacker).webReset,
	"web-unread":  (*attacker).webUnread,
	"log-flood":   (*attacker).logFlood,
	"pings":       (*attacker).pings,
}

func names() []string { return slices.Sorted(maps.Keys(attacks)) }

// attack is the attacker, until ctx ends.
func attack(ctx context.Context, name string, target []string) error {
	if len(target) != 3 {
		return errors.New("-target: want the director's USER and MGMT addresses, and a directory with certificates")
	}
	tls, err := identity.FromDir(target[2], identity.Client)
	if err != nil {
		return err
	}
	others, err := identity.NewDevelopment(time.Now())
	if err != nil {
		return err
	}
	a := &attacker{user: target[0], mgmt: target[1], tls: tls, stranger: others[identity.Worker]}
	if name != everybody {
		one, ok := attacks[name]
		if !ok {
			return fmt.Errorf("-attack=%s: there are %s", name, strings.Join(names(), ", "))
		}
		one(a, ctx)
		return nil
	}
	var all sync.WaitGroup
	for _, one := range attacks {
		all.Go(func() { one(a, ctx) })
	}
	all.Wait()
	return nil
}

// everywhere runs n of something at once, again and again, until ctx ends.
func everywhere(ctx context.Context, n int, one func(ctx context.Context, i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				one(ctx, i)
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	all.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

var hello = wire.Append(nil, &wirepb.ClientHello{Version: wire.Version, Client: "attacker"})

// window is how much of a stream the attacker takes and does not read, in bytes.
const window = 1 << 10

// connect returns a greeted connection.
func (a *attacker) connect(ctx context.Context) (*quicnet.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conf := quicnet.ClientConfig()
	conf.InitialStreamReceiveWindow, conf.MaxStreamReceiveWindow = window, window
	conn, err := quicnet.Dial(ctx, evil, a.user, identity.ClientTLS(a.tls, wire.ALPNClient, identity.Director), conf)
	if err != nil {
		return nil, err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err == nil {
		_, err = stream.Write(hello)
	}
	if err == nil {
		_, err = stream.Read(make([]byte, 100)) // of the welcome
	}
	if err != nil {
		_ = conn.Close(wire.QUICOk, "")
		return nil, err
	}
	return conn, nil
}

// withConns runs something on n connections at once.
func (a *attacker) withConns(ctx context.Context, n int, one func(ctx context.Context, conn *quicnet.Conn)) {
	everywhere(ctx, n, func(ctx context.Context, _ int) {
		conn, err := a.connect(ctx)
		if err != nil {
			return
		}
		defer conn.Close(wire.QUICOk, "") //nolint:errcheck // it is the attacker's
		one(ctx, conn)
	})
}

// fill keeps as many streams open as the director allows, on each of which it says something.
func fill(ctx context.Context, conn *quicnet.Conn, most int, say func(stream *quic.Stream) error) {
	for n := 0; n < most; n++ {
		stream, err := conn.OpenStreamSync(ctx)
		if err != nil || say(stream) != nil {
			break
		}
	}
	select {
	case <-ctx.Done():
	case <-conn.Context().Done():
	case <-time.After(5 * time.Second): // what was refused is tried again
	}
}

// halfOpen opens requests that are never whole.
func (a *attacker) halfOpen(ctx context.Context) {
	a.withConns(ctx, 10, func(ctx context.Context, conn *quicnet.Conn) {
		fill(ctx, conn, 1000, func(stream *quic.Stream) error {
			_, err := stream.Write([]byte{5})
			return err
		})
	})
}

// idle opens connections, and does nothing with them.
func (a *attacker) idle(ctx context.Context) {
	var connecting sync.Mutex // more at once would be the flood of another attack
	everywhere(ctx, maxConnections, func(ctx context.Context, _ int) {
		connecting.Lock()
		conn, err := a.connect(ctx)
		connecting.Unlock()
		if err != nil {
			pause(ctx, time.Second)
			return
		}
		defer conn.Close(wire.QUICOk, "") //nolint:errcheck // it is the attacker's
		select {
		case <-ctx.Done():
		case <-conn.Context().Done():
		}
	})
}

// generate asks for something long.
func generate(stream *quic.Stream, prompt string) error {
	request := &wirepb.Generate{Request: &wirepb.Request{Prompt: prompt, MaxTokens: 100_000, Seed: 1}}
	if _, err := stream.Write(wire.Append(nil, request)); err != nil {
		return err
	}
	return stream.Close()
}

// unread asks for as much as all workers have places for, and reads nothing.
func (a *attacker) unread(ctx context.Context) {
	a.withConns(ctx, 4, func(ctx context.Context, conn *quicnet.Conn) {
		fill(ctx, conn, workerCapacity, func(stream *quic.Stream) error { return generate(stream, "x") })
	})
}

// prompts makes the director hold long prompts.
func (a *attacker) prompts(ctx context.Context) {
	long := strings.Repeat("x", 65_000)
	a.withConns(ctx, 10, func(ctx context.Context, conn *quicnet.Conn) {
		fill(ctx, conn, 250, func(stream *quic.Stream) error { return generate(stream, long) })
	})
}

// initials begins handshakes, and goes on with none of them.
func (a *attacker) initials(ctx context.Context) {
	everywhere(ctx, 4, func(ctx context.Context, _ int) {
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: evil.ip})
		if err != nil {
			return
		}
		dialing, cancel := context.WithCancel(ctx)
		defer cancel()
		tr := &quic.Transport{Conn: &firstFlight{UDPConn: socket, sent: cancel}}
		remote, err := net.ResolveUDPAddr("udp", a.user)
		if err == nil {
			_, _ = tr.Dial(dialing, remote, identity.ClientTLS(a.tls, wire.ALPNClient, identity.Director), quicnet.ClientConfig())
		}
		_ = tr.Close()
		_ = socket.Close()
	})
}

// pings asks whether the director is there, four times as often as it answers.
func (a *attacker) pings(ctx context.Context) {
	question := append([]byte{4}, make([]byte, 16)...)
	everywhere(ctx, 4, func(ctx context.Context, _ int) {
		socket, remote, err := evil.DialPacket(ctx, a.user)
		if err != nil {
			return
		}
		for range 100 {
			_, _ = socket.WriteTo(question, remote)
		}
		_ = socket.Close()
	})
}

// firstFlight is a socket that sends the packets with which a handshake begins, and no more.
type firstFlight struct {
	*net.UDPConn

	n    int
	sent func()
}

func (f *firstFlight) WriteTo(p []byte, addr net.Addr) (int, error) {
	if f.n++; f.n > 2 {
		f.sent()
		return len(p), nil
	}
	return f.UDPConn.WriteTo(p, addr)
}

// WriteMsgUDP is what quic-go would use if it could; it is hidden behind WriteTo.
func (f *firstFlight) WriteMsgUDP(b, _ []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, err = f.WriteTo(b, addr)
	return n, 0, err
}

// http opens a connection to the MGMT port, and asks for something.
func (a *attacker) http(ctx context.Context, path string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: evil.ip}, Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", a.mgmt)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: director\r\n\r\n", path); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// keptAlive asks for the director's health on many connections, and keeps them.
func (a *attacker) keptAlive(ctx context.Context) {
	everywhere(ctx, 400, func(ctx context.Context, _ int) {
		conn, err := a.http(ctx, "/healthz")
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // it is the attacker's
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		_, _ = io.Copy(io.Discard, conn) // until the director closes it
	})
}

// slowRead asks for all there is, and takes a little of it at a time.
func (a *attacker) slowRead(ctx context.Context) {
	paths := []string{"/v1/sessions?limit=1000", "/v1/connections?limit=1000", "/v1/status", "/v1/swaps?limit=1000"}
	everywhere(ctx, 40, func(ctx context.Context, i int) {
		conn, err := a.http(ctx, paths[i%len(paths)])
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // it is the attacker's
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(1 << 10)
		}
		for reader := bufio.NewReaderSize(conn, 16); ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
			if _, err := reader.ReadByte(); err != nil {
				return
			}
		}
	})
}

// logFlood does what is cheap and may be worth a line of the log: it shows a stranger's certificate, asks and takes it back.
func (a *attacker) logFlood(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() {
		everywhere(ctx, 4, func(ctx context.Context, _ int) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			conn, err := quicnet.Dial(ctx, evil, a.mgmt, identity.ClientTLS(a.stranger, wire.ALPNMgmt, identity.Director), quicnet.MgmtConfig(time.Second))
			if err == nil {
				_ = conn.Close(wire.QUICOk, "")
			}
		})
	})
	both.Go(func() {
		a.withConns(ctx, 4, func(ctx context.Context, conn *quicnet.Conn) {
			for ctx.Err() == nil && conn.Context().Err() == nil {
				stream, err := conn.OpenStreamSync(ctx)
				if err != nil || generate(stream, "x") != nil {
					return
				}
				pause(ctx, time.Millisecond)
				stream.CancelRead(wire.StreamCancel)
			}
		})
	})
	both.Wait()
}
