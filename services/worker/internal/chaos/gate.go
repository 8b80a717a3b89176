package chaos

import (
	"context"
	"sync/atomic"
)

// Gate stops everything that passes through it while it is shut: a worker that is alive but hangs. It is open
// at first. Shut and Open may be called by one goroutine at a time, Wait by any number.
type Gate struct {
	shut atomic.Pointer[chan struct{}] // closed when the gate opens; nil while it is open
}

// Shut makes Wait block.
func (g *Gate) Shut() {
	if g.shut.Load() == nil {
		opened := make(chan struct{})
		g.shut.Store(&opened)
	}
}

// Open lets everyone pass.
func (g *Gate) Open() {
	if opened := g.shut.Swap(nil); opened != nil {
		close(*opened)
	}
}

// IsShut reports whether the gate is shut.
func (g *Gate) IsShut() bool { return g.shut.Load() != nil }

// Wait returns nil when the gate is open, or the cause of the end of ctx.
func (g *Gate) Wait(ctx context.Context) error {
	for {
		opened := g.shut.Load()
		if opened == nil {
			return nil
		}
		select {
		case <-*opened:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
