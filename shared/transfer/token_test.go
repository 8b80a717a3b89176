package transfer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestWithdrawn(t *testing.T) {
	ways := map[string]func(p *pair){
		"dropped":         func(p *pair) { p.server.Store.Drop(moving) },
		"director gone":   func(p *pair) { p.server.Store.DropDirector("director-1") },
		"store closed":    func(p *pair) { p.server.Store.Close() },
		"replaced":        func(p *pair) { p.put(moving, compress(p, 2, noise(mib)), 0) },
		"expired":         func(*pair) { time.Sleep(890 * time.Millisecond) },
		"dropped, of two": func(p *pair) { p.put(checkpoint, compress(p, 2, noise(mib)), 0); p.server.Store.Drop(moving) },
	}
	for name, withdraw := range ways {
		t.Run(name, func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				p.server.Limiter = paced()
				p.put(moving, compress(p, 1, noise(5*mib)), 3*time.Second)
				wait := p.pulling(1)
				time.Sleep(2110 * time.Millisecond)
				withdraw(p)
				start := time.Now()
				_, err := wait()
				requireCode(p, wire.CodeStateGone, err)
				require.Less(p, time.Since(start), 100*time.Millisecond)
				require.Equal(p, []uint32{0}, p.asked(), "a refusal is final")
			})
		})
	}
}

// While the puller is cut off its snapshot is dropped: coming back it is refused, and not given another one.
func TestWithdrawnMeanwhile(t *testing.T) {
	ways := map[string]func(p *pair){
		"dropped":               func(p *pair) { p.server.Store.Drop(moving) },
		"replaced":              func(p *pair) { p.put(moving, compress(p, 2, noise(5*mib)), 0) },
		"dropped, token as old": func(p *pair) { p.server.Store.Drop(moving); p.expire() },
		"revoked":               func(p *pair) { p.server.Revoke("director-1", 7) },
	}
	for name, withdraw := range ways {
		t.Run(name, func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				p.server.Limiter = paced()
				p.put(moving, compress(p, 1, noise(5*mib)), 0)
				wait := p.pulling(1)
				time.Sleep(2110 * time.Millisecond)
				p.target.Isolate()
				withdraw(p)
				time.Sleep(5 * time.Second)
				p.target.Rejoin()
				_, err := wait()
				requireCode(p, wire.CodeStateGone, err)
				require.Equal(p, []uint32{0, 8}, p.asked())
			})
		})
	}
}

// A token only has to be in time when the transfer begins.
func TestTokenExpiresMeanwhile(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		p.put(moving, compress(p, 1, noise(5*mib)), 0)
		wait := p.pulling(1)
		time.Sleep(2110 * time.Millisecond)
		p.target.Isolate()
		p.expire()
		time.Sleep(5 * time.Second)
		p.target.Rejoin()
		_, err := wait()
		require.NoError(p, err)
		_, err = p.pull(2)
		requireCode(p, wire.CodeTokenExpired, err)
	})
}

// A revoked token gets no further chunk, and the snapshot is there for another one.
func TestRevoked(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		state := noise(2 * mib)
		p.put(checkpoint, compress(p, 1, state), 0)
		wait := p.pulling(1)
		time.Sleep(1110 * time.Millisecond)
		p.server.Revoke("director-1", 8)
		p.server.Revoke("director-2", 7)
		time.Sleep(100 * time.Millisecond)
		p.server.Revoke("director-1", 7)
		_, err := wait()
		requireCode(p, wire.CodeTokenRevoked, err)
		require.Equal(p, []uint32{0}, p.asked())
		snapshot, err := p.pull(2)
		require.NoError(p, err)
		requireState(p, state, snapshot)
	})
}

func TestTokens(t *testing.T) {
	simulate(t, near, func(p *pair) {
		state := noise(mib)
		_, err := p.pull(1)
		requireCode(p, wire.CodeStateGone, err)

		p.put(moving, compress(p, 5, state), 0)
		_, err = p.pull(1)
		requireCode(p, wire.CodeTokenReplayed, err)
		_, err = p.pull(2)
		require.NoError(p, err)
		_, err = p.pull(2)
		requireCode(p, wire.CodeTokenReplayed, err)
		p.put(moving, compress(p, 5, state), 0)
		_, err = p.pull(2)
		requireCode(p, wire.CodeTokenReplayed, err)

		p.puller.cfg.Name = "somebody"
		_, err = p.pull(3)
		requireCode(p, wire.CodeTokenTarget, err)
		p.puller.cfg.Name = "target"
		_, err = p.pull(3)
		require.NoError(p, err, "the refusal has not used it up")

		p.put(moving, compress(p, 5, state), 0)
		short := token(4)
		short.Secret = short.Secret[1:]
		_, err = p.puller.Pull(p.Context(), identity.Worker, fetch(short))
		requireCode(p, wire.CodeTokenUnknown, err)
		_, err = p.puller.Pull(p.Context(), identity.Worker, &wirepb.Fetch{Addr: addr})
		requireCode(p, wire.CodeTokenMissing, err)
		require.Equal(p, mib, compress(p, 5, state).Size())
		_, held := p.server.Store.Get(moving)
		require.True(p, held)
	})
}

// What was taken for a move is preferred and pulled once; a checkpoint stays, the token that pulled it does not.
func TestCheckpointStays(t *testing.T) {
	simulate(t, near, func(p *pair) {
		old, newer := noise(kib), noise(2*kib)
		p.put(checkpoint, compress(p, 1, old), 0)
		p.put(moving, compress(p, 2, newer), 0)
		snapshot, err := p.pull(1)
		require.NoError(p, err)
		requireState(p, newer, snapshot)
		for number := byte(2); number < 2+2*maxUses; number++ {
			snapshot, err = p.pull(number)
			require.NoError(p, err)
			requireState(p, old, snapshot)
			_, err = p.pull(number)
			requireCode(p, wire.CodeTokenReplayed, err)
		}
	})
}

// A transfer of the checkpoint stays one of the checkpoint.
func TestResumedTransferIsOfTheSameSnapshot(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		state := noise(5 * mib)
		p.put(checkpoint, compress(p, 1, state), 0)
		wait := p.pulling(1)
		time.Sleep(2110 * time.Millisecond)
		p.target.Isolate()
		p.put(moving, compress(p, 2, noise(mib)), 0)
		time.Sleep(3 * time.Second)
		p.target.Rejoin()
		snapshot, err := wait()
		require.NoError(p, err)
		requireState(p, state, snapshot)
		_, held := p.server.Store.Get(moving)
		require.True(p, held)
	})
}

func TestChunkBeyondTheEnd(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.put(moving, compress(p, 1, noise(mib)), 0)
		ask := func(number byte, first uint32) error {
			_, r := p.raw(number, first)
			_, err := wire.ReadMessage[*wirepb.Snapshot](r)
			return err
		}
		require.NoError(p, ask(1, 0))
		requireCode(p, wire.CodeInvalid, ask(1, 5))
		requireCode(p, wire.CodeInvalid, ask(1, 1<<32-1))
		require.NoError(p, ask(1, 4), "all has arrived, but nobody was told")
	})
}

// A transfer that is under way is its target's alone: nobody else goes on with it, or ends it.
func TestAnotherPullerCannotGoOn(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		state := noise(2 * mib)
		p.put(moving, compress(p, 1, state), 0)
		wait := p.pulling(1)
		time.Sleep(time.Second)
		cfg := p.puller.cfg
		cfg.Name = "somebody"
		other := NewPuller(cfg)
		defer other.Close()
		_, err := other.Pull(p.Context(), identity.Worker, fetch(token(1)))
		requireCode(p, wire.CodeTokenTarget, err)
		snapshot, err := wait()
		require.NoError(p, err)
		requireState(p, state, snapshot)
		require.Empty(p, p.server.Store.uses)
	})
}

// A token's newer stream ends its older one.
func TestSuperseded(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.server.Limiter = paced()
		state := noise(2 * mib)
		p.put(moving, compress(p, 1, state), 0)
		_, older := p.raw(1, 0)
		time.Sleep(time.Second)
		snapshot, err := p.pull(1)
		require.NoError(p, err)
		requireState(p, state, snapshot)
		for err == nil {
			_, err = older.Next()
		}
		require.LessOrEqual(p, p.chunksSent(), 8+5)
	})
}

// A director that gives out token after token for a checkpoint has given up the first ones.
func TestOldestTokenIsForgotten(t *testing.T) {
	simulate(t, near, func(p *pair) {
		p.put(checkpoint, compress(p, 1, noise(kib)), 0)
		for number := byte(1); number <= maxUses+1; number++ {
			_, r := p.raw(number, 0)
			_, err := wire.ReadMessage[*wirepb.Snapshot](r)
			require.NoError(p, err)
		}
		_, err := p.pull(1)
		requireCode(p, wire.CodeTokenReplayed, err)
		_, err = p.pull(2)
		require.NoError(p, err)
	})
}
