package worker_test

import (
	"strings"
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
)

func TestEngineOfConfiguration(t *testing.T) {
	small, err := worker.EngineOf(config.Worker{Engine: "stateful", StateBytes: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	large, err := worker.EngineOf(config.Worker{Engine: "stateful", StateBytes: 1 << 11})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := small.(engine.Stateful); !ok || small.Fingerprint() == large.Fingerprint() {
		t.Errorf("%T, %s and %s", small, small.Fingerprint(), large.Fingerprint())
	}
	if _, err := worker.Engine("stateful"); err == nil || !strings.Contains(err.Error(), "0 bytes") {
		t.Errorf("without a size: %v", err)
	}
}
