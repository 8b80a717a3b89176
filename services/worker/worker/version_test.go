package worker_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// A worker's own messages, and those of other protocols, have no place on any link.
func TestControlStreamTakesNothingElse(t *testing.T) {
	for _, m := range []wire.Message{
		&wirepb.Prepared{}, &wirepb.Captured{}, &wirepb.Held{}, &wirepb.Pull{}, &wirepb.Snapshot{}, &wirepb.Chunk{},
		&wirepb.PullDone{}, &wirepb.Heartbeat{}, fakedirector.NewPlanner("one").Hello(),
	} {
		name := string(m.ProtoReflect().Descriptor().Name())
		t.Run(name, func(t *testing.T) {
			run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
				l := fakedirector.NewPlanner("one").Open(t, b.World, b.from, userAddr)
				l.Send(t, m)
				if closed := l.Lost(t); closed.ErrorCode != wire.QUICProtocol || !strings.Contains(closed.ErrorMessage, name+" has no place") {
					t.Errorf("got %v", closed)
				}
				l.Close()
			})
		})
	}
}

func TestRegistersWithItsVersions(t *testing.T) {
	for claimed, engine := range map[uint32]string{0: "markov", 1: "markov", 3: "stateful"} {
		version := cmp.Or(claimed, wire.NewestPeerVersion)
		run(t, planned(engine), worker.Deps{Version: claimed}, func(t *testing.T, b *bench) {
			got := <-b.mgmt.Registrations
			if got.GetVersion() != version || got.GetOldestVersion() != version || got.GetModels()[0].GetStateful() != (engine == "stateful") || got.GetBuild() == "" {
				t.Errorf("got %v", got)
			}
			if status := b.status(t); status.Version != version || status.Build != got.GetBuild() {
				t.Errorf("got %+v", status)
			}
		})
	}
}

// A worker that claims another version, older or newer, refuses this one's hello, and takes its own.
func TestWorkerOfAnotherVersion(t *testing.T) {
	for _, version := range []uint32{1, 4} {
		run(t, settings(), worker.Deps{Version: version}, func(t *testing.T, b *bench) {
			hello := fakedirector.Hello()
			l := b.Dial(t, b.from, userAddr, hello)
			refusal := wire.FromMessage(fakedirector.Next[*wirepb.Error](t, l))
			if refusal.Code != wire.CodeVersion || !strings.Contains(refusal.Message, "version 3") ||
				!strings.HasSuffix(refusal.Message, fmt.Sprint("worker worker-a ", version)) {
				t.Errorf("got %v", refusal)
			}
			if closed := l.Lost(t); closed.ErrorCode != wire.QUICRefused {
				t.Errorf("got %v", closed)
			}
			l.Close()
			hello.Version = version
			l = b.Dial(t, b.from, userAddr, hello)
			fakedirector.Next[*wirepb.LinkWelcome](t, l)
			l.Send(t, attach(1, 1, 3))
			stream(t, l, 1, 1, nil)
			l.Close()
		})
	}
}

// A worker that a director refuses tries again, says once why, and registers when there is another director.
func TestDirectorRefusesTheVersion(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		b.mgmt.Close()
		b.mgmt = b.Listen(t, b.from)
		b.mgmt.RefuseSome(func(r *wirepb.Register) *wire.Error {
			return wire.Errorf(wire.CodeVersion, "worker speaks version %d, this director 4 to 5", r.GetVersion())
		})
		start := time.Now()
		for range 30 {
			if got := <-b.mgmt.Registrations; got.GetVersion() != wire.NewestPeerVersion {
				t.Errorf("got %v", got)
			}
		}
		if took := time.Since(start); took < 20*time.Second {
			t.Errorf("30 attempts in %v", took)
		}
		if status := b.status(t); status.Directors != 0 {
			t.Errorf("registered at %d", status.Directors)
		}
		b.mgmt.Refuse(nil)
		<-b.mgmt.Heartbeats
	})
	complaints(t, logs, "version 3", "this director 4 to 5")
}

// complaints fails unless there was one about a registration, which says all of that.
func complaints(t *testing.T, logs *observer.ObservedLogs, says ...string) {
	t.Helper()
	found := 0
	for _, entry := range logs.FilterMessage("not registered at director").All() {
		err, _ := entry.ContextMap()["error"].(string)
		all := true
		for _, say := range says {
			all = all && strings.Contains(err, say)
		}
		if all {
			found++
		}
	}
	if found != 1 {
		t.Errorf("said %d times %q: %v", found, says, logs.All())
	}
}
