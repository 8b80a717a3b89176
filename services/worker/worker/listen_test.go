package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

func TestAddressesInUse(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		second, err := worker.New(settings(), worker.Deps{Network: b.host, TLS: b.TLS[identity.Worker]})
		if err != nil {
			t.Fatal(err)
		}
		err = second.Run(t.Context())
		var problem config.Problem
		if !errors.As(err, &problem) {
			t.Fatalf("got %v", err)
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], `CONNECTION_SWAP_WORKER_USER_ADDR=":62001"`) ||
			!strings.HasPrefix(lines[1], `CONNECTION_SWAP_WORKER_MGMT_ADDR=":63001"`) {
			t.Errorf("got %v", err)
		}
	})
}

// What is bound before something cannot be is released again.
func TestHalfBoundIsReleased(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		host := b.Net.Host("worker-b")
		taken, err := host.ListenStream(":63001") // TCP only: its pair comes late
		if err != nil {
			t.Fatal(err)
		}
		start := func() error {
			cfg := settings()
			cfg.Label = "worker-b"
			w, err := worker.New(cfg, worker.Deps{Network: host, TLS: b.TLS[identity.Worker]})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return w.Run(ctx)
		}
		if err := start(); err == nil || !strings.Contains(err.Error(), "WORKER_MGMT_ADDR") || strings.Contains(err.Error(), "USER") {
			t.Errorf("got %v", err)
		}
		if err := taken.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 { // and again after a whole run
			if err := start(); err != nil {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestUnknownEngine(t *testing.T) {
	cfg := settings()
	cfg.Engine = "gpt"
	if _, err := worker.New(cfg, worker.Deps{}); err == nil || !strings.Contains(err.Error(), `"gpt"`) {
		t.Errorf("got %v", err)
	}
}
