package sim

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
)

// TestReadersThatNeverRead opens streams that nobody reads, beside one that is read, on the same connection and
// the same workers; then their worker dies. The one that is read keeps its rhythm, the others cost their window.
func TestReadersThatNeverRead(t *testing.T) {
	const window, idle, tokens = 32, 60, 6000
	s := setup{
		director: func(cfg *config.Director) { cfg.WindowTokens = window },
		worker:   func(cfg *config.Worker) { cfg.TokenInterval, cfg.Engine = 2*time.Millisecond, "markov" },
	}
	stage(t, s, func(t *testing.T, s *scenario) {
		for range idle {
			stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "unread", MaxTokens: 50_000})
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
		}
		var last time.Time
		var longest time.Duration
		o := s.generate(tokens, func(sequence uint64, worker string) {
			if gap := time.Since(last); sequence > 1 && gap > longest {
				longest = gap
			}
			last = time.Now()
			if sequence == tokens/2 {
				p := s.worker(worker)
				p.die(p.host.Kill)
			}
		})
		if o.err != nil || o.tokens != tokens || len(o.swaps) != 1 {
			t.Fatalf("%d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
		}
		if longest > 20*time.Millisecond {
			t.Errorf("the stream that is read paused for %v", longest)
		}
		var all connections
		if err := s.status("/v1/connections", &all); err != nil {
			t.Fatal(err)
		}
		if n := len(all.Connections[0].Streams); n != idle {
			t.Errorf("%d streams are unread, want %d", n, idle)
		}
		for _, st := range all.Connections[0].Streams {
			if held := st.Sequence - st.Sent; held > window+st.Swaps || st.Sequence > 50_000/2 {
				t.Errorf("an unread stream is at token %d and holds %d, its window is %d", st.Sequence, held, window)
			}
		}
	})
}

// TestStalledClientIsGivenUp bounds how long nobody reads.
func TestStalledClientIsGivenUp(t *testing.T) {
	s := setup{
		director: func(cfg *config.Director) { cfg.WindowTokens, cfg.ClientStall = 8, 10*time.Second },
		worker:   func(cfg *config.Worker) { cfg.TokenInterval, cfg.Engine = time.Millisecond, "markov" },
	}
	stage(t, s, func(t *testing.T, s *scenario) {
		stream, err := s.conn.Generate(s.ctx, connswap.Request{Prompt: "unread", MaxTokens: 100_000})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // in the bubble
		var all connections
		if err := s.status("/v1/connections", &all); err != nil || len(all.Connections) != 1 || len(all.Connections[0].Streams) != 0 {
			t.Errorf("%v, connections %+v", err, all)
		}
		for _, err = range stream.Tokens() {
			if err != nil {
				break
			}
		}
		if e := new(connswap.Error); !errors.As(err, &e) || e.Code != connswap.CodeClientStall {
			t.Errorf("the client learns %v", err)
		}
	})
}

// TestThousandSessionsOnOneWorker kills the worker that has them all. Two others take them, as far as there is
// room, in order of their age; the rest waits until the dead one is back.
func TestThousandSessionsOnOneWorker(t *testing.T) {
	const sessions, tokens, conns = 1000, 60, 10
	s := setup{
		director: func(cfg *config.Director) { cfg.MaxConcurrentSwaps = 50 },
		worker: func(cfg *config.Worker) {
			cfg.Capacity = sessions
			if cfg.Label != "worker-0" {
				cfg.Capacity = 350
			}
		},
	}
	stage(t, s, func(t *testing.T, s *scenario) {
		other := s.workers[1]
		other.die(other.host.Kill)
		var streams sync.WaitGroup
		var mu sync.Mutex
		swapped, waited := 0, 0
		want := counted(tokens)
		for range conns {
			conn, err := s.dial("client")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() //nolint:errcheck // the run is over
			one := &scenario{cluster: s.cluster, conn: conn}
			for range sessions / conns {
				streams.Go(func() {
					o := one.generate(tokens, nil)
					mu.Lock()
					defer mu.Unlock()
					if o.err != nil || o.text != want {
						t.Errorf("%d tokens, %v", o.tokens, o.err)
					}
					swapped += len(o.swaps)
					waited += len(o.waiting)
				})
			}
		}
		time.Sleep(500 * time.Millisecond) // in the bubble: all are on worker-0
		other.restart()
		s.work(func(cfg *config.Worker) {
			cfg.Capacity, cfg.TokenInterval, cfg.Engine = 350, interval, "counter"
		})
		time.Sleep(500 * time.Millisecond)
		dying := s.workers[0]
		dying.die(dying.host.Kill)
		time.Sleep(time.Second)
		for _, p := range s.workers[1:] {
			if n := p.sessions(); n > 350 {
				t.Errorf("%s has %d sessions, its capacity is 350", p.cfg.Label, n)
			}
		}
		dying.restart()
		streams.Wait()
		if swapped != sessions || waited < sessions-700 {
			t.Errorf("%d sessions moved and %d were told to wait; want all %d, and at least %d", swapped, waited, sessions, sessions-700)
		}
	})
}

// sessions returns how many sessions the director counts on a worker.
func (p *process) sessions() int {
	for _, w := range p.cluster.registered() {
		if w.Worker == p.cfg.Label {
			return w.Sessions
		}
	}
	return 0
}

// TestUnreadStreamsGiveTheirPlacesBack: one client takes all places, and reads nothing. Others are served; and when it
// reads on, it finds each of its streams whole.
func TestUnreadStreamsGiveTheirPlacesBack(t *testing.T) {
	const tokens, places = 8000, 4
	su := setup{
		director: func(cfg *config.Director) { cfg.WindowTokens, cfg.WorkerWait = 32, 2*time.Minute },
		worker: func(cfg *config.Worker) {
			cfg.TokenInterval, cfg.Engine, cfg.Capacity = 2*time.Millisecond, "markov", places/2
		},
	}
	stage(t, su, func(t *testing.T, s *scenario) {
		want := s.generate(tokens, nil)
		hog, err := s.dial("hog")
		if err != nil {
			t.Fatal(err)
		}
		defer hog.Close() //nolint:errcheck // all is read
		var unread []*connswap.Stream
		for range places {
			stream, err := hog.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: tokens, Seed: 7})
			if err != nil {
				t.Fatal(err)
			}
			unread = append(unread, stream)
		}
		time.Sleep(time.Minute)
		var others []<-chan outcome
		for range places {
			others = append(others, s.inBackground("p", tokens))
		}
		for _, other := range others {
			if o := <-other; o.err != nil || o.tokens != tokens || len(o.swaps) > 0 {
				t.Errorf("beside unread streams: %d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
			}
		}
		var results []<-chan outcome
		for _, stream := range unread {
			result := make(chan outcome, 1)
			go func() { result <- readStream(stream, nil) }()
			results = append(results, result)
		}
		for _, result := range results {
			if o := <-result; o.err != nil || o.text != want.text || len(o.swaps) == 0 {
				t.Errorf("what was not read: %d tokens, %v, swaps %+v", o.tokens, o.err, o.swaps)
			}
		}
	})
}

// TestUnreadStreamsEndWhereThereIsLittleRoom: they end long before their client's patience would, and are told why; a stream
// that is read goes on, and others find room.
func TestUnreadStreamsEndWhereThereIsLittleRoom(t *testing.T) {
	const most = 16
	su := setup{
		director: func(cfg *config.Director) { cfg.MaxSessions, cfg.WindowTokens = most, 32 },
		worker:   func(cfg *config.Worker) { cfg.TokenInterval, cfg.Engine = 2*time.Millisecond, "markov" },
	}
	stage(t, su, func(t *testing.T, s *scenario) {
		honest := s.inBackground("p", 20_000)
		hog, err := s.dial("hog")
		if err != nil {
			t.Fatal(err)
		}
		defer hog.Close() //nolint:errcheck // its streams have ended
		var unread []*connswap.Stream
		for range most*7/8 - 1 {
			stream, err := hog.Generate(s.ctx, connswap.Request{Prompt: "unread", MaxTokens: 50_000})
			if err != nil {
				t.Fatal(err)
			}
			unread = append(unread, stream)
		}
		time.Sleep(time.Minute) // in the bubble; of five that its client has
		for _, stream := range unread {
			if o := readStream(stream, nil); !errors.Is(o.err, &connswap.Error{Code: connswap.CodeClientStall}) {
				t.Errorf("an unread stream: %d tokens, %v", o.tokens, o.err)
			}
		}
		if o := <-honest; o.err != nil || o.tokens != 20_000 {
			t.Errorf("a stream that is read: %d tokens, %v", o.tokens, o.err)
		}
		if o := s.generate(10, nil); o.err != nil {
			t.Errorf("a new one: %v", o.err)
		}
	})
}
