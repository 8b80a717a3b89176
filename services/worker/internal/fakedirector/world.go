// Package fakedirector is a director for the worker's tests. It does what the test tells it, right or wrong.
package fakedirector

import (
	"testing"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/simtest"
)

// eventTimeout is how long, in the bubble's time, a test waits for what has to come.
const eventTimeout = 30 * time.Second

// World is a simulated network and the certificates of everyone on it.
type World struct {
	Net *simtest.Net
	TLS map[identity.Role]identity.Source
}

// NewWorld returns a network with a millisecond of delay. Call it inside a synctest bubble.
func NewWorld(t *testing.T) *World {
	t.Helper()
	sources, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w := &World{
		Net: simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}}),
		TLS: sources,
	}
	t.Cleanup(w.Net.Close)
	return w
}
