// Package placementtest has a placement for tests of whatever asks for places.
package placementtest

import (
	"math/rand/v2"
	"testing"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
)

// New returns a placement on the workers of f that takes them in turn, and as many handovers at once as given. It ends
// with the test.
func New(t testing.TB, atOnce int, f *fleet.Fleet) *placement.Placement {
	t.Helper()
	router, err := routing.New(routing.RoundRobin, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := placement.Config{MaxHandovers: atOnce, MaxPerTarget: atOnce}
	p := placement.New(cfg, router, rand.NewPCG(1, 1), f, zap.NewNop())
	t.Cleanup(p.Close)
	return p
}
