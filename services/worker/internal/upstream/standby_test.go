package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
	"github.com/connswap/connswap/services/worker/internal/upstream/probe"
)

func advance(t *testing.T, g engine.Generation, chunks []engine.Chunk) {
	t.Helper()
	if err := engine.Advance(t.Context(), g, chunks, ignore); err != nil {
		t.Fatalf("advancing by %d chunks: %v", len(chunks), err)
	}
}

// TestStandbys: whatever a standby is opened behind, and brought then, it goes on with the text, in all shapes and both roles.
func TestStandbys(t *testing.T) {
	for name, c := range cases() {
		for _, role := range []engine.Role{engine.StandingBy, engine.RunningAlong} {
			t.Run(fmt.Sprintf("%s, role %d", name, role), func(t *testing.T) {
				e := engineOf(c.server, c.abilities, Options{})
				whole, finish := rest(t, opened(t, e, c.request, nil))
				for cut := range len(whole) + 1 {
					req := c.request
					req.Role = role
					g := opened(t, e, req, whole[:cut/3])
					advance(t, g, whole[cut/3:cut/2])
					advance(t, g, whole[cut/2:cut])
					more, ended := rest(t, g)
					same(t, fmt.Sprintf("cut after %d chunks", cut), slices.Concat(whole[:cut], more), whole, ended, finish)
				}
			})
		}
		quiet(t, c.server)
	}
}

// TestStandbyWarms: a standby that goes on by ids has the server read, and leaves the making until the first Next.
func TestStandbyWarms(t *testing.T) {
	d := plainDouble(20)
	e := engineOf(d, exact, Options{})
	whole, _ := rest(t, opened(t, e, chat(""), nil))
	d.calls = nil
	req := chat("")
	req.Role = engine.StandingBy
	g := opened(t, e, req, whole[:9])
	advance(t, g, whole[9:14])
	if len(d.asked()) > 0 || len(d.warmed) != 1 || len(d.warmed[0].IDs) != 12 {
		t.Errorf("before the takeover it was asked for %d answers, and warmed with %+v", len(d.asked()), d.warmed)
	}
	if p := g.(engine.Pledging).Pledge(); p.Resumed != engine.Exact || p.Continuity != engine.Exact {
		t.Errorf("%+v", p)
	}
	_, _ = rest(t, g)
	if calls := d.asked(); len(calls) != 1 || way(calls[0]) != "ids 11, 992 left" {
		t.Errorf("at the takeover it was asked for %d answers", len(calls))
	}
}

// TestStandbyFails: what goes wrong at the takeover is Next's error, and stays that.
func TestStandbyFails(t *testing.T) {
	d := plainDouble(20)
	reports := make(chan error, 9)
	e := engineOf(d, exact, Options{Report: func(err error) { reports <- err }})
	whole, _ := rest(t, opened(t, e, chat(""), nil))
	if err := <-reports; err != nil {
		t.Errorf("a good answer is reported as %v", err)
	}
	req := chat("")
	req.Role = engine.StandingBy
	d.drift = 8
	g := opened(t, e, req, whole[:9])
	for range 2 {
		if _, err := g.Next(t.Context()); !errors.Is(err, engine.ErrDiverged) {
			t.Errorf("%v", err)
		}
	}
	if err := <-reports; err != nil {
		t.Errorf("a server with another text is reported as %v", err)
	}
	d.warming = &api.Error{Fault: api.Gone, Message: "connection refused"}
	if _, err := e.Open(t.Context(), req, whole[:9], ignore); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("a server that is not there: %v", err)
	}
	if err := <-reports; !errors.Is(err, d.warming) {
		t.Errorf("a server that is not there is reported as %v", err)
	}
	d.warming = errors.ErrUnsupported
	d.drift = 0
	g = opened(t, e, req, whole[:9])
	e.Set(api.Model{Name: theModel.Name, Fingerprint: "another"}, exact)
	if _, err := g.Next(t.Context()); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("another model by now: %v", err)
	}
}

// TestStandbyChangesItsMind: a stream that turns out to be one for a replay is replayed from then on.
func TestStandbyChangesItsMind(t *testing.T) {
	c := cases()["reasoning"]
	e := engineOf(c.server, exact, Options{})
	whole, _ := rest(t, opened(t, e, c.request, nil))
	e = engineOf(c.server, exact, Options{}) // another worker's
	c.server.calls = nil
	req := c.request
	req.Role = engine.StandingBy
	g := opened(t, e, req, nil)
	if n := len(c.server.asked()); n != 0 {
		t.Errorf("it was asked for %d answers", n)
	}
	advance(t, g, whole[:2])
	if n := len(c.server.asked()); n != 1 {
		t.Errorf("once there is reasoning it was asked for %d answers", n)
	}
}

// TestStandbyDiffers: what the stream gets is compared with what the standby would have made.
func TestStandbyDiffers(t *testing.T) {
	d := plainDouble(20)
	e := engineOf(d, replayable, Options{})
	whole, _ := rest(t, opened(t, e, chat(""), nil))
	other := slices.Clone(whole)
	other[12].Text = []byte("another")
	for _, role := range []engine.Role{engine.Serving, engine.StandingBy, engine.RunningAlong} {
		req := chat("")
		req.Role = role
		g := opened(t, e, req, whole[:9])
		if err := engine.Advance(t.Context(), g, other[9:14], ignore); !errors.Is(err, engine.ErrDiverged) {
			t.Errorf("role %d: %v", role, err)
		}
	}
}

// TestRunningAlong: the next chunks are there at the takeover, whatever the server does then.
func TestRunningAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := plainDouble(20)
		whole, _ := rest(t, opened(t, engineOf(d, replayable, Options{}), chat(""), nil))
		d.gate = make(chan struct{})
		req := chat("")
		req.Role = engine.RunningAlong
		go func() {
			for range 12 {
				d.gate <- struct{}{}
			}
		}()
		g := opened(t, engineOf(d, probe.Abilities{}, Options{}), req, nil)
		advance(t, g, whole[:8])
		synctest.Wait() // the server has made 12 by now, and makes no more
		for i := 8; i < 12; i++ {
			c, err := g.Next(t.Context())
			if err != nil || string(c.Text) != string(whole[i].Text) {
				t.Fatalf("chunk %d: %+v, %v", i+1, c, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		quiet(t, d)
		g.(*generation).feed = nil
	})
}

// TestReadAheadIsBounded: a server that is faster than the stream is read no further than that.
func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := plainDouble(1000)
		made := 0
		d.fail = func(_ api.Call, n int) error { made = n; return nil }
		opened(t, engineOf(d, replayable, Options{}), chat(""), nil)
		synctest.Wait()
		if made > readAhead+2 {
			t.Errorf("%d pieces were read, of which 1 was wanted", made)
		}
	})
}
