package sim

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestSimulationOfServers breaks clusters of workers beside inference servers of a random class, by seeds: servers die, hang, and come back
// as another version; networks are cut; workers die and stop. A stream has the whole text of one that nothing happened to, and its usage, or
// it ends in an error that says so; and in the end no server works for anybody.
func TestSimulationOfServers(t *testing.T) {
	whole, failed := 0, 0
	for s := uint64(1); s <= min(*seeds, 400); s++ {
		if *seed != 0 && s != *seed {
			continue
		}
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			r := rand.New(rand.NewPCG(s, 11))
			a := abilities[r.IntN(len(abilities))]
			a.options.TokenInterval = []time.Duration{5, 20, 50}[r.IntN(3)] * time.Millisecond
			a.options.Prefill = []time.Duration{0, 30, 300}[r.IntN(3)] * time.Millisecond
			inFleet(t, besides{ability: a, servers: 2 + r.IntN(2), trace: *seed != 0}, func(t *testing.T, f *fleet) {
				p := &randomPlay{fleet: f, t: t, random: r}
				p.run()
				whole, failed = whole+p.whole, failed+p.failed
			})
		})
	}
	t.Logf("%d streams whole, %d ended in an error", whole, failed)
	if whole < 5*failed {
		t.Errorf("%d streams are whole, %d ended in an error", whole, failed)
	}
}

// randomPlay is one of them.
type randomPlay struct {
	*fleet
	t      *testing.T
	random *rand.Rand

	mu            sync.Mutex
	whole, failed int
	changed       bool // a server has come back as another version
}

func (p *randomPlay) run() {
	type one struct {
		start  time.Duration
		doc    map[string]any
		family string
		want   reply
	}
	names := []string{"chat", "completions", "responses"}
	var all []one
	for i := range 5 {
		family := names[p.random.IntN(len(names))]
		w := wanted{prompt: "[[length 50]] Hi", fields: map[string]any{"seed": p.random.IntN(1000)}}
		if p.random.IntN(3) == 0 {
			w.fields["temperature"] = 0
		}
		doc := w.document(family, fmt.Sprint("stream ", i), p.random.IntN(3) > 0)
		want, err := p.ask(http.MethodPost, families[family], doc)
		if err != nil || want.status != http.StatusOK {
			p.t.Fatalf("%d %q, %v", want.status, want.body, err)
		}
		all = append(all, one{time.Duration(p.random.IntN(800)) * time.Millisecond, doc, family, want})
	}
	var faults, streams sync.WaitGroup
	for range 1 + p.random.IntN(3) {
		p.fault(&faults)
	}
	for _, s := range all {
		standby := map[bool]string{true: "1", false: "0"}[p.random.IntN(3) == 0]
		streams.Go(func() {
			time.Sleep(s.start) // in the bubble
			got, err := p.ask(http.MethodPost, families[s.family], s.doc, "X-Connswap-Standby", standby)
			p.judge(s.family, s.doc["stream"] == true, s.want, got, err)
		})
	}
	streams.Wait()
	faults.Wait()
	for range 600 { // servers that came back are being measured
		if time.Sleep(100 * time.Millisecond); p.running() == 0 {
			return
		}
	}
	p.idle(p.t, 0)
}

// fault lets one thing go wrong at a time, and mends it later.
func (p *randomPlay) fault(faults *sync.WaitGroup) {
	at := time.Duration(50+p.random.IntN(1500)) * time.Millisecond
	length := time.Duration(100+p.random.IntN(4000)) * time.Millisecond
	which, kind := p.random.IntN(len(p.servers)), p.random.IntN(6)
	s, w := p.servers[which], p.workers[which]
	faults.Go(func() {
		time.Sleep(at)
		switch kind {
		case 0, 1:
			s.Kill()
			if kind == 1 {
				p.mu.Lock()
				p.changed = true
				p.mu.Unlock()
				s.Upgrade("9.9.9", "another", "weights-2")
			}
			time.Sleep(length)
			if err := s.Start(); err != nil {
				p.t.Error(err)
			}
		case 2:
			s.Hang()
			time.Sleep(length)
			s.Resume()
		case 3:
			cut(p.net, s.host, w.host)
			time.Sleep(length)
			heal(p.net, s.host, w.host)
		case 4:
			w.die(w.host.Kill)
			time.Sleep(length)
			w.restart()
		default:
			w.stop()
			time.Sleep(length)
			w.restart()
		}
	})
}

// judge holds an answer against that which nothing has disturbed.
func (p *randomPlay) judge(family string, stream bool, want, got reply, err error) {
	m := &serverMatrix{fleet: p.fleet, t: p.t, family: family, stream: stream}
	p.mu.Lock()
	defer p.mu.Unlock()
	h, heardErr := m.heardOf(got)
	over := err == nil && got.status == http.StatusOK && heardErr == nil && h.over
	if !over { // and says so: an answer that ends without a word is none
		if err == nil && got.status == http.StatusOK && heardErr == nil {
			p.t.Errorf("an end without a word: %q", got.body)
		}
		if !p.changed {
			p.t.Errorf("%d %.300q, %v", got.status, got.body[max(0, len(got.body)-300):], err)
		}
		p.failed++
		return
	}
	p.whole++
	expected, _ := m.heardOf(want)
	if fmt.Sprint(h.texts, h.finishes, h.usage) != fmt.Sprint(expected.texts, expected.finishes, expected.usage) && !p.changed {
		p.t.Errorf("got %v %s\nwant %v %s", h.texts, h.usage, expected.texts, expected.usage)
	}
}
