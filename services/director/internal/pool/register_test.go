package pool

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/lived"
	"github.com/connswap/connswap/shared/quicnet"
)

// slowNetwork takes its time to find out that it reaches nobody, whatever the context says.
type slowNetwork struct{ quicnet.Network }

func (slowNetwork) DialPacket(context.Context, string) (net.PacketConn, net.Addr, error) {
	time.Sleep(time.Second)
	return nil, nil, errors.New("nobody there")
}

func register(t *testing.T, p *Pool, instance string) *Registration {
	t.Helper()
	r, err := p.Register(Worker{Label: "a", Instance: instance})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func inPool(t *testing.T, test func(t *testing.T, p *Pool)) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{ProgressTimeout: time.Second}, Deps{Network: slowNetwork{}, Log: zap.NewNop(), Clock: &lived.Clock{}})
		defer p.Close()
		test(t, p)
	})
}

// A worker that hung for so long that its registration lapsed registers again while the director is still busy
// giving it up. It must not be forgotten: it has no reason to come a third time.
func TestRegisterWhileLeaving(t *testing.T) {
	inPool(t, func(t *testing.T, p *Pool) {
		lapsed := register(t, p, "1")
		time.Sleep(100 * time.Millisecond) // the keeper dials
		lapsed.Close()
		again := register(t, p, "1")
		time.Sleep(time.Minute)
		if workers, _ := p.Workers(); len(workers) != 1 || !again.Heartbeat(0) {
			t.Errorf("the pool has %+v", workers)
		}
		again.Close()
		time.Sleep(time.Minute)
		if workers, _ := p.Workers(); len(workers) != 0 {
			t.Errorf("the pool still has %+v", workers)
		}
	})
}

// An instance that was replaced learns of it at its next heartbeat.
func TestReplacedInstanceIsTold(t *testing.T) {
	inPool(t, func(t *testing.T, p *Pool) {
		old := register(t, p, "1")
		time.Sleep(100 * time.Millisecond)
		if !old.Heartbeat(0) {
			t.Error("replaced by nobody")
		}
		younger := register(t, p, "2")
		if old.Heartbeat(0) || !younger.Heartbeat(0) {
			t.Error("both instances count")
		}
		old.Close()
		if workers, _ := p.Workers(); len(workers) != 1 || workers[0].Instance != "2" {
			t.Errorf("the pool has %+v", workers)
		}
	})
}
