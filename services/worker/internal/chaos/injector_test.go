package chaos_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/worker/internal/chaos"
)

// record runs an injector for d and returns when each failure began and ended.
func record(t *testing.T, cfg chaos.InjectorConfig, d time.Duration, meanwhile func(i *chaos.Injector)) (began, ended []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		effect := chaos.Effect{
			Begin: func(string) { began = append(began, time.Since(start)) },
			End:   func() { ended = append(ended, time.Since(start)) },
		}
		i := chaos.NewInjector(cfg, effect, zap.NewNop(), func() []zap.Field { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- i.Run(ctx) }()
		if meanwhile != nil {
			meanwhile(i)
		}
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return began, ended
}

func config(seed uint64) chaos.InjectorConfig {
	return chaos.InjectorConfig{Mode: "error", Min: 10 * time.Second, Max: 25 * time.Second, Recovery: 7 * time.Second, Seed: seed}
}

func TestFailuresFallInTheRange(t *testing.T) {
	const day = 24 * time.Hour
	began, ended := record(t, config(0), day, nil)
	if len(began) < 3000 || len(ended) != len(began) {
		t.Fatalf("%d began, %d ended", len(began), len(ended))
	}
	var low, high int
	from := time.Duration(0)
	for i := range began {
		after := began[i] - from
		if after < 10*time.Second || after > 25*time.Second {
			t.Fatalf("failure %d after %v", i, after)
		}
		if after < 14*time.Second {
			low++
		}
		if after > 21*time.Second {
			high++
		}
		if ended[i] < day && ended[i]-began[i] != 7*time.Second {
			t.Fatalf("failure %d lasts %v", i, ended[i]-began[i])
		}
		from = ended[i]
	}
	if n := len(began) / 5; low < n || high < n { // 4 of 15 seconds each
		t.Errorf("of %d failures %d are early and %d late", len(began), low, high)
	}
}

func TestSeedRepeatsFailures(t *testing.T) {
	one, _ := record(t, config(42), time.Hour, nil)
	same, _ := record(t, config(42), time.Hour, nil)
	other, _ := record(t, config(43), time.Hour, nil)
	if !slices.Equal(one, same) {
		t.Error("the same seed gives other times")
	}
	if slices.Equal(one, other) {
		t.Error("another seed gives the same times")
	}
	free, _ := record(t, config(0), time.Hour, nil)
	again, _ := record(t, config(0), time.Hour, nil)
	if slices.Equal(free, again) {
		t.Error("seed 0 gives the same times twice")
	}
}

func TestFixedTime(t *testing.T) {
	cfg := chaos.InjectorConfig{Mode: "error", Max: time.Second, Min: time.Second, Recovery: time.Second}
	began, _ := record(t, cfg, 6*time.Second+1, nil)
	if want := []time.Duration{time.Second, 3 * time.Second, 5 * time.Second}; !slices.Equal(began, want) {
		t.Errorf("got %v, want %v", began, want)
	}
}

func TestNow(t *testing.T) {
	began, ended := record(t, config(1), 9*time.Second, func(i *chaos.Injector) {
		time.Sleep(time.Second)
		i.Now()
		i.Now()
		time.Sleep(time.Second)
		i.Now() // under way already
	})
	if want := []time.Duration{time.Second}; !slices.Equal(began, want) {
		t.Errorf("began at %v, want %v", began, want)
	}
	if want := []time.Duration{8 * time.Second}; !slices.Equal(ended, want) {
		t.Errorf("ended at %v, want %v", ended, want)
	}
}

func TestTheEndHealsAFailure(t *testing.T) {
	began, ended := record(t, config(1), 3*time.Second, func(i *chaos.Injector) { i.Now() })
	if len(began) != 1 || len(ended) != 1 || ended[0] != 3*time.Second {
		t.Errorf("began %v, ended %v", began, ended)
	}
}

func TestNone(t *testing.T) {
	cfg := config(1)
	cfg.Mode = chaos.None
	began, _ := record(t, cfg, time.Hour, func(i *chaos.Injector) { i.Now() })
	if len(began) > 0 {
		t.Errorf("failed at %v", began)
	}
}
