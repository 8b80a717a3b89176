package inference

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func TestZMoves(t *testing.T) {
	s := startSystem(t, []*server{startServer(t), startServer(t)}, "slow", "chat")
	cuts := []int{50}
	if v := os.Getenv("CUTS"); v != "" {
		cuts = []int{100, 700, 1500}
	}
	for _, cut := range cuts {
		t.Run(strconv.Itoa(cut), func(t *testing.T) {
			a := ask{model: "slow", tokens: int64(3 * cut), temperature: 0.8, seed: 4}
			began := time.Now()
			want := s.read(a, nil)
			t.Logf("undisturbed: %v", time.Since(began))
			hit := ""
			began = time.Now()
			g := s.read(a, func(n int, worker string) {
				if n == cut {
					hit = worker
					t.Logf("asked to stop after %v", time.Since(began))
					faults["worker asked to stop"].happens(s, worker)
				}
			})
			t.Logf("all: %v, gap %v, swaps %d %s", time.Since(began), g.gap, g.swaps, g.resumed)
			g.same(t, want)
			faults["worker asked to stop"].mend(s, hit)
		})
	}
}
