package sim

import (
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
)

// TestStandby: of a stream whose client asked for it another worker makes the text, too. It goes on as soon as the first one is noticed
// to be lost, whatever takes time in a failover otherwise; and the next one runs along with it. Who asked for nothing has none.
func TestStandby(t *testing.T) {
	engine := func(cfg *config.Worker) { cfg.Engine, cfg.TokenInterval = "counter", 20*time.Millisecond }
	stage(t, setup{worker: engine}, func(t *testing.T, s *scenario) {
		s.work(engine)
		time.Sleep(time.Second)
		for _, wanted := range []bool{false, true} {
			stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 400, Standby: wanted})
			if err != nil {
				t.Fatal(err)
			}
			text, standby, swaps := "", "", 0
			for event, err := range stream.Events() {
				if err != nil {
					t.Fatal(err)
				}
				switch e := event.(type) {
				case connswap.Token:
					text += e.Text
					if e.Sequence%100 != 0 || e.Sequence == 400 {
						continue
					}
					standby = s.standby(t)
					if wanted != (standby != "") || standby == e.Worker {
						t.Errorf("%s serves, and %q stands by", e.Worker, standby)
					}
					p := s.worker(e.Worker)
					p.die(p.host.Kill)
					time.AfterFunc(500*time.Millisecond, p.restart)
				case connswap.Swapped:
					swaps++
					if wanted && e.To != standby {
						t.Errorf("%s goes on, and %s stood by", e.To, standby)
					}
				}
			}
			if text != counted(400) || swaps != 3 {
				t.Errorf("standby %v: %d swaps, %q", wanted, swaps, text)
			}
		}
	})
}

// standby returns who stands by for the only stream that runs.
func (s *scenario) standby(t *testing.T) string {
	t.Helper()
	status, err := s.operate().Status(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return status.Connections[0].Streams[0].Standby
}
