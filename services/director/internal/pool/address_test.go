package pool

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/lived"
	"github.com/connswap/connswap/shared/quicnet"
)

// deaf is a network on which nobody answers. It remembers who was dialled last.
type deaf struct {
	quicnet.Network
	last atomic.Value
}

func (d *deaf) DialPacket(_ context.Context, addr string) (net.PacketConn, net.Addr, error) {
	d.last.Store(addr)
	return nil, nil, errors.New("nobody there")
}

// TestSameInstanceAtAnotherAddress is a container that comes back to its network under another address before its
// old registration is overdue.
func TestSameInstanceAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nw := &deaf{}
		p := New(Config{ProgressTimeout: time.Second}, Deps{Network: nw, Log: zap.NewNop(), Clock: &lived.Clock{}})
		defer p.Close()
		old, err := p.Register(Worker{Label: "a", Instance: "1", UserAddr: "10.0.0.5:62001"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if _, err := p.Register(Worker{Label: "a", Instance: "1", UserAddr: "10.0.0.9:62001"}); err != nil {
			t.Fatal(err)
		}
		if old.Heartbeat(0) {
			t.Error("the old registration still counts")
		}
		old.Close()
		time.Sleep(time.Minute)
		if last := nw.last.Load(); last != "10.0.0.9:62001" {
			t.Errorf("the director dials %v", last)
		}
	})
}
