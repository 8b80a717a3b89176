package sim

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine/servertest"
	"github.com/connswap/connswap/shared/config"
)

// running is how many requests all servers work for.
func (f *fleet) running() (n int) {
	for _, s := range f.servers {
		n += s.Running()
	}
	return n
}

const nativeTokens = 60

// native begins a stream over connswap.
func (f *fleet) native(t *testing.T, conn *connswap.Conn, standby bool) *connswap.Stream {
	t.Helper()
	stream, err := conn.Generate(f.cluster.ctx, connswap.Request{Prompt: "[[length 200]] Hi", MaxTokens: nativeTokens, Seed: 7, Standby: standby})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// tale is what came of a native stream.
type tale struct {
	text    string
	tokens  int
	swaps   int
	longest time.Duration // between two chunks
	err     error
	usage   string
}

// tell reads a native stream; at is called after each chunk.
func tell(stream *connswap.Stream, at func(token connswap.Token)) (o tale) {
	last := time.Time{}
	for event, err := range stream.Events() {
		if err != nil {
			o.err = err
			return o
		}
		switch e := event.(type) {
		case connswap.Token:
			if !last.IsZero() {
				o.longest = max(o.longest, time.Since(last))
			}
			last = time.Now()
			o.text, o.tokens = o.text+e.Text, o.tokens+e.Tokens
			if at != nil {
				at(e)
			}
		case connswap.Swapped:
			o.swaps++
		case connswap.Done:
			o.usage = fmt.Sprint(e.FinishReason, " ", e.Usage.Prompt, " ", e.Usage.Completion)
		}
	}
	return o
}

// TestPlannedMoves: what operators do, and a worker's SIGTERM, no client sees: its text is whole, of each class.
func TestPlannedMoves(t *testing.T) {
	for _, a := range abilities {
		a.options.TokenInterval, a.options.Prefill = 20*time.Millisecond, 50*time.Millisecond
		for _, move := range []string{"swap", "drain", "stop"} {
			t.Run(a.name+"/"+move, func(t *testing.T) {
				inFleet(t, besides{ability: a, servers: 2}, func(t *testing.T, f *fleet) {
					s := &scenario{cluster: f.cluster}
					conn, err := f.dial("native")
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close() //nolint:errcheck // the run is over
					want := tell(f.native(t, conn, false), nil)
					if want.err != nil || want.tokens < nativeTokens {
						t.Fatalf("%+v", want)
					}
					var all sync.WaitGroup
					for _, cut := range []int{1, 8, 23, 45} {
						all.Go(func() {
							moved := false
							stream := f.native(t, conn, false)
							got := tell(stream, func(token connswap.Token) {
								if moved || cut != 23 && move != "swap" || int(token.Sequence) < cut {
									return
								}
								moved = true
								p := s.worker(token.Worker)
								switch move {
								case "swap":
									f.wg.Go(func() {
										if _, err := s.operate().Swap(f.cluster.ctx, conn.ID(), stream.ID(), ""); err != nil {
											t.Error(err)
										}
									})
								case "drain":
									f.wg.Go(func() {
										if _, err := s.operate().Drain(f.cluster.ctx, p.cfg.Label, time.Minute, true, nil); err != nil {
											t.Error(err)
										}
									})
								default:
									f.wg.Go(p.stop)
								}
							})
							if got.err != nil || got.text != want.text || got.usage != want.usage {
								t.Errorf("at %d: %+v, want %+v", cut, got, want)
							}
							t.Logf("at %d: %d swaps, longest pause %v", cut, got.swaps, got.longest)
						})
					}
					all.Wait()
					f.idle(t, 100*time.Millisecond)
				})
			})
		}
	}
}

// TestStandbyOfServers: of a stream with a standby the next chunk comes as soon as the loss is noticed; of another one as soon as its
// text so far was read again, and as many tokens made as are compared.
func TestStandbyOfServers(t *testing.T) {
	const step, prefill = 20 * time.Millisecond, 400 * time.Millisecond
	for _, a := range abilities {
		a.options.TokenInterval, a.options.Prefill = step, prefill
		t.Run(a.name, func(t *testing.T) {
			gaps := map[bool]time.Duration{}
			for _, standby := range []bool{false, true} {
				inFleet(t, besides{ability: a, servers: 2, worker: func(cfg *config.Worker) { cfg.UpstreamOverlap = 6 }}, func(t *testing.T, f *fleet) {
					conn, err := f.dial("native")
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close() //nolint:errcheck // the run is over
					want := tell(f.native(t, conn, false), nil)
					var killed time.Time
					cut := false
					got := tell(f.native(t, conn, standby), func(token connswap.Token) {
						switch {
						case !killed.IsZero() && gaps[standby] == 0 && time.Since(killed) > step*3/2:
							gaps[standby] = time.Since(killed)
						case !cut && token.Sequence >= 40:
							cut, killed = true, time.Now()
							for i, p := range f.workers {
								if p.cfg.Label == token.Worker {
									f.servers[i].Kill()
								}
							}
						}
					})
					if got.err != nil || got.text != want.text || got.usage != want.usage || got.swaps != 1 {
						t.Errorf("standby %v: %+v, want %+v", standby, got, want)
					}
					f.idle(t, 100*time.Millisecond)
				})
			}
			t.Logf("gap %v, with a standby %v", gaps[false], gaps[true])
			// A connection that is reset is noticed within the path's delays.
			if gaps[true] > 10*time.Millisecond+step+10*time.Millisecond {
				t.Errorf("with a standby the next chunk comes after %v", gaps[true])
			}
			if strings.HasPrefix(a.name, "vllm") && a.options.Sampler == servertest.UsualSampler && gaps[false] > 20*time.Millisecond+prefill+(6+2)*step {
				t.Errorf("by ids the next chunk comes after %v", gaps[false])
			}
		})
	}
}
