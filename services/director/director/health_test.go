package director

import (
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// stuckCore is a log that blocks its first line until it is freed.
type stuckCore struct {
	zapcore.Core

	once           *sync.Once
	reached, freed chan struct{}
}

func (stuckCore) Enabled(zapcore.Level) bool { return true }

func (c stuckCore) With([]zapcore.Field) zapcore.Core { return c }

func (c stuckCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}

func (c stuckCore) Write(zapcore.Entry, []zapcore.Field) error {
	c.once.Do(func() {
		close(c.reached)
		<-c.freed
	})
	return nil
}

// TestStuckPartIsNamed has a goroutine get stuck with the fleet's lock, as it was when a log that nobody read blocked. On
// real sockets: the time of a bubble would stand still.
func TestStuckPartIsNamed(t *testing.T) {
	sources, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.DefaultDirector()
	cfg.ID, cfg.UserAddr, cfg.MgmtAddr = "director", "127.0.0.1:0", "127.0.0.1:0"
	log := stuckCore{zapcore.NewNopCore(), &sync.Once{}, make(chan struct{}), make(chan struct{})}
	d, err := New(cfg, Deps{Network: quicnet.OS{}, TLS: sources[identity.Director], Log: zap.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	if d.mgmtHTTP.Addr().String() != d.MgmtAddr().String() {
		t.Errorf("HTTP is at %v, QUIC at %v: the MGMT port has one number", d.mgmtHTTP.Addr(), d.MgmtAddr())
	}
	d.serving.Store(true)
	if _, err := d.ready(); err != nil {
		t.Fatal(err)
	}
	registered := make(chan struct{})
	go func() {
		defer close(registered)
		_, _ = d.fleet.Register(link.Peer{Label: "worker-a", UserAddr: "127.0.0.1:1"}) // never connected
	}()
	<-log.reached
	_, unready := d.ready()
	for name, err := range map[string]error{"live": d.live(), "ready": unready} {
		if err == nil || !strings.HasPrefix(err.Error(), "fleet: stuck, no answer for ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if reply := d.health(); reply.GetReady() {
		t.Errorf("%v", reply)
	}
	close(log.freed)
	<-registered
	if err := d.live(); err != nil {
		t.Error(err)
	}
	d.fleet.Close()
	d.placement.Close()
	d.checkpoints.Close()
	if err := d.unbind(); err != nil {
		t.Error(err)
	}
	_ = d.mgmtHTTP.Close()
}
