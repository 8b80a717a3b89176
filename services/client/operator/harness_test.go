package operator_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/simtest"
)

// world is an operator's host and a director's, in a bubble with fake time.
type world struct {
	*testing.T
	net      *simtest.Net
	desk     *simtest.Host
	director *simtest.Host
	mgmt     *fakedirector.Mgmt // after serve
	ids      map[identity.Role]identity.Source
}

// listen has a port at the director that says a word to everybody, and hangs up.
func (w *world) listen(addr, greeting string) {
	w.Helper()
	l, err := w.director.ListenStream(addr)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, greeting) // nobody minds
			_ = conn.Close()
		}
	}()
}

// inWorld runs a test in a bubble. What is left running at its end fails the test.
func inWorld(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		n := simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})
		ids, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		test(&world{T: t, net: n, desk: n.Host("desk"), director: n.Host("director"), ids: ids})
	})
}

func (w *world) options() operator.Options {
	return operator.Options{TLS: w.ids[identity.Operator], Network: w.desk}
}

// serve starts a director's MGMT port.
func (w *world) serve(operate func(*fakedirector.Operation) error) {
	w.Helper()
	m := fakedirector.Mgmt{Network: w.director, Addr: ":61001", TLS: w.ids[identity.Director], Operate: operate}
	w.mgmt = m.Start(w)
}

// dial connects to a director that answers with operate, until the test ends.
func (w *world) dial(operate func(*fakedirector.Operation) error) *operator.Client {
	w.Helper()
	w.serve(operate)
	client, err := operator.Dial(w.Context(), "director:61001", w.options())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { client.Close() }) //nolint:errcheck // some tests close it themselves
	return client
}
