package worker_test

import (
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

// What version 2 added has no place on a link of version 1.
func TestVersion1KnowsNoVersion2(t *testing.T) {
	for _, m := range []wire.Message{
		&wirepb.TokenKeys{}, &wirepb.Revoke{Session: 1, Epoch: 1}, fakedirector.Feed(1, 1, 1), fakedirector.Pivot(1, 1, 0, nil),
		capture(1, 1), &wirepb.Discard{Session: 1}, &wirepb.Fetch{Session: 1, Epoch: 1}, &wirepb.Hold{},
	} {
		name := string(m.ProtoReflect().Descriptor().Name())
		t.Run(name, func(t *testing.T) {
			run(t, planned("stateful"), worker.Deps{}, func(t *testing.T, b *bench) {
				l, _ := b.Open(t, b.from, userAddr)
				m1 := attach(1, 1, 0)
				m1.Credit = 0
				l.Send(t, m1)
				fakedirector.Next[*wirepb.Begin](t, l)
				l.Send(t, m)
				if closed := l.Lost(t); closed.ErrorCode != wire.QUICProtocol || !strings.Contains(closed.ErrorMessage, name+" has no place") {
					t.Errorf("got %v", closed)
				}
				b.idle(t, mgmtAddr)
				l.Close()
			})
		})
	}
}

func TestVersion1KnowsNoStandby(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		p := fakedirector.NewPlanner("one")
		p.Open(t, b.World, b.from, userAddr).Close() // the worker knows its keys
		hello := fakedirector.Hello()
		hello.DirectorInstance = "one"
		l := b.Dial(t, b.from, userAddr, hello)
		fakedirector.Next[*wirepb.LinkWelcome](t, l)
		l.Send(t, p.Standby(t, attach(1, 2, 3), "worker-a"))
		refused(t, l, 1, 2, wire.CodeProtocol)
		l.Send(t, attach(1, 3, 3))
		stream(t, l, 1, 3, nil)
		l.Close()
	})
}

// A worker's own messages, and those of other protocols, have no place on any link.
func TestVersion2HasItsPlacesToo(t *testing.T) {
	for _, m := range []wire.Message{
		&wirepb.Prepared{}, &wirepb.Captured{}, &wirepb.Held{}, &wirepb.Pull{}, &wirepb.Snapshot{}, &wirepb.Chunk{},
		&wirepb.PullDone{}, &wirepb.Operate{}, fakedirector.NewPlanner("one").Hello(),
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
	for version, engine := range map[uint32]string{1: "markov", 2: "stateful"} {
		run(t, planned(engine), worker.Deps{Version: version}, func(t *testing.T, b *bench) {
			got := <-b.mgmt.Registrations
			if got.GetVersion() != version || got.GetOldestVersion() != 1 || got.GetStateful() != (engine == "stateful") || got.GetBuild() == "" {
				t.Errorf("got %v", got)
			}
			if status := b.status(t); status.Version != version || status.Build != got.GetBuild() {
				t.Errorf("got %+v", status)
			}
		})
	}
}

// A worker that plays the release before refuses the newer hello, and takes its own.
func TestWorkerOfVersion1(t *testing.T) {
	run(t, settings(), worker.Deps{Version: 1}, func(t *testing.T, b *bench) {
		l := b.Dial(t, b.from, userAddr, fakedirector.NewPlanner("one").Hello())
		refusal := wire.FromMessage(fakedirector.Next[*wirepb.Error](t, l))
		if refusal.Code != wire.CodeVersion || !strings.Contains(refusal.Message, "version 2") || !strings.Contains(refusal.Message, "1 to 1") {
			t.Errorf("got %v", refusal)
		}
		if closed := l.Lost(t); closed.ErrorCode != wire.QUICRefused {
			t.Errorf("got %v", closed)
		}
		l.Close()
		l, _ = b.Open(t, b.from, userAddr)
		l.Send(t, attach(1, 1, 3))
		stream(t, l, 1, 1, nil)
		l.Close()
	})
}

// older refuses what a director of version 1 does not know, with its words.
func older(r *wirepb.Register) *wire.Error {
	if r.GetVersion() == 1 {
		return nil
	}
	return wire.Errorf(wire.CodeVersion, "worker speaks version %d, this director 1", r.GetVersion())
}

func TestRegistersAtAnOlderDirector(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		b.mgmt.Close()
		b.mgmt = b.Listen(t, b.from)
		b.mgmt.RefuseSome(older)
		for _, version := range []uint32{2, 1} {
			if got := <-b.mgmt.Registrations; got.GetVersion() != version || got.GetOldestVersion() != 1 || got.GetWorker() != "worker-a" {
				t.Errorf("got %v, want version %d", got, version)
			}
		}
		for range 20 {
			<-b.mgmt.Heartbeats
		}
		if n, more := b.mgmt.Connections(), len(b.mgmt.Registrations); n != 1 || more != 0 {
			t.Errorf("%d connections, %d registrations more", n, more)
		}
		// The director is replaced by a newer one: it is asked with the newer version first.
		b.mgmt.Close()
		b.mgmt = b.Listen(t, b.from)
		if got := <-b.mgmt.Registrations; got.GetVersion() != 2 {
			t.Errorf("got %v", got)
		}
		<-b.mgmt.Heartbeats
	})
	for _, entry := range logs.All() {
		if err, _ := entry.ContextMap()["error"].(string); strings.Contains(err, "speaks version") {
			t.Errorf("complained: %v", entry)
		}
	}
}

// What a director of version 1 says to the second attempt is what counts.
func TestOlderDirectorRefusesForAnotherReason(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		b.mgmt.Close()
		b.mgmt = b.Listen(t, b.from)
		b.mgmt.RefuseSome(func(r *wirepb.Register) *wire.Error {
			if err := older(r); err != nil {
				return err
			}
			return wire.Errorf(wire.CodeLabelInUse, "another worker is worker-a")
		})
		time.Sleep(30 * time.Second)
		b.mgmt.RefuseSome(older)
		<-b.mgmt.Heartbeats
	})
	complaints(t, logs, "label_in_use: another worker is worker-a")
}

func TestDirectorRefusesAllVersions(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	run(t, settings(), worker.Deps{Log: zap.New(core)}, func(t *testing.T, b *bench) {
		b.mgmt.Close()
		b.mgmt = b.Listen(t, b.from)
		b.mgmt.RefuseSome(func(r *wirepb.Register) *wire.Error {
			return wire.Errorf(wire.CodeVersion, "worker speaks version %d to %d, this director 3 to 4", r.GetOldestVersion(), r.GetVersion())
		})
		start := time.Now()
		for range 30 {
			for _, version := range []uint32{2, 1} {
				if got := <-b.mgmt.Registrations; got.GetVersion() != version {
					t.Errorf("got %v, want version %d", got, version)
				}
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
	complaints(t, logs, "version 1 to 2", "this director 3 to 4")
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
