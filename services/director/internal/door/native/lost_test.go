package native

import (
	"testing"
	"time"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// A client that vanishes gives its places back within its idle time, and is called lost; one that is cut off for less
// goes on.
func TestLostClientGivesItsPlacesBack(t *testing.T) {
	const idle = 6 * time.Second
	inWorld(t, func(cfg *Config) { cfg.ClientIdle = idle }, func(w *world) {
		conn := w.greeted(0)
		for range maxStreams {
			_, frames := w.ask(conn, &wirepb.Request{Prompt: "hello"})
			w.served(frames)
		}
		time.Sleep(time.Minute) // nobody has anything to say: keep-alives do
		client := w.net.Host("client")
		client.Isolate()
		time.Sleep(3 * time.Second)
		client.Rejoin()
		time.Sleep(time.Minute)
		if n := w.server.shares.Status()["streams"].Used; n != maxStreams {
			t.Fatalf("%d streams, want %d", n, maxStreams)
		}

		client.Crash()
		time.Sleep(idle * 9 / 8)
		if n := w.server.shares.Status()["streams"].Used; n != 0 {
			t.Errorf("%d places are still taken", n)
		}
		for _, s := range w.server.sessions.List() {
			if s.State != session.Cancelled || s.Reason != "client lost" {
				t.Errorf("ended: %+v", s)
			}
		}
	})
}

// Without a stream a client may be cut off for longer.
func TestClientWithoutStreamsMayBeSilent(t *testing.T) {
	inWorld(t, func(cfg *Config) { cfg.ClientIdle = 6 * time.Second }, func(w *world) {
		conn := w.greeted(0)
		client := w.net.Host("client")
		client.Isolate()
		time.Sleep(20 * time.Second)
		client.Rejoin()
		time.Sleep(5 * time.Second)
		_, frames := w.ask(conn, &wirepb.Request{Prompt: "hello"})
		w.served(frames)
	})
}
