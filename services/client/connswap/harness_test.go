package connswap_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/simtest"
)

// delay is one way between client and director.
const delay = time.Millisecond

// world is a client's host and a director's, in a bubble with fake time.
type world struct {
	*testing.T
	net      *simtest.Net
	client   *simtest.Host
	director *simtest.Host
	ids      map[identity.Role]identity.Source
}

// inWorld runs a test in a bubble. What is left running at its end fails the test.
func inWorld(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: delay}})
		ids, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w := &world{T: t, net: n, client: n.Host("client"), director: n.Host("director"), ids: ids}
		t.Cleanup(n.Close)
		test(w)
	})
}

// start starts a director on its host.
func (w *world) start(d fakedirector.Director) *fakedirector.Director {
	d.Network, d.Addr, d.TLS = w.director, ":61000", w.ids[identity.Director]
	return d.Start(w)
}

func (w *world) options() connswap.Options {
	return connswap.Options{TLS: w.ids[identity.Client], Network: w.client, Name: "test"}
}

// dial connects to a director that plays play, until the test ends.
func (w *world) dial(play func(*fakedirector.Stream)) *connswap.Conn {
	w.Helper()
	w.start(fakedirector.Director{Play: play})
	conn, err := connswap.Dial(w.Context(), "director:61000", w.options())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() }) //nolint:errcheck // some tests close it themselves
	return conn
}

// generate opens a stream to a director that plays play.
func (w *world) generate(ctx context.Context, play func(*fakedirector.Stream)) *connswap.Stream {
	w.Helper()
	stream, err := w.dial(play).Generate(ctx, connswap.Request{Prompt: "hello", MaxTokens: 5, Seed: 7})
	if err != nil {
		w.Fatal(err)
	}
	return stream
}

// collect reads a stream to its end.
func collect(s *connswap.Stream) (events []connswap.Event, err error) {
	for event, err := range s.Events() {
		if err != nil {
			return events, err
		}
		events = append(events, event)
	}
	return events, nil
}
