package main

import (
	"context"
	"fmt"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
)

// absence is a way for a client to lose its director. After it the network is as before.
type absence struct {
	name  string
	lasts time.Duration
	times int // how often it is measured
	begin func(ctx context.Context, m *mobile) error
	end   func(m *mobile)
}

var absences = []absence{
	{"lost", 0, 50, func(_ context.Context, m *mobile) error { m.lose(); return nil }, func(*mobile) {}},
	{"moved", 0, 50, func(ctx context.Context, m *mobile) error { return m.move(ctx) }, func(*mobile) {}},
	{"cut", time.Second, 50, cutOff, func(m *mobile) { m.cut(false) }},
	{"cut", 20 * time.Second, 10, cutOff, func(m *mobile) { m.cut(false) }},
}

func cutOff(_ context.Context, m *mobile) error {
	m.cut(true)
	return nil
}

// resumed is one line of the table: how long a reader waits for its next token, beyond the absence.
type resumed struct {
	Class   string  `json:"class"`
	Absence string  `json:"absence"`
	Lasts   float64 `json:"lasts_ms"`
	Samples int     `json:"samples"`
	Back    summary `json:"back_ms"`
	Dialled int     `json:"dialled"` // how often another connection took over
	Machine string  `json:"machine"`
}

func (resumed) title() string {
	return fmt.Sprintf("%-7s %-6s %9s %7s | %8s %8s %8s | %7s", "resume", "", "lasts", "samples", "p50 ms", "p99", "max", "dialled")
}

func (r resumed) String() string {
	return fmt.Sprintf("%-7s %-6s %7.0fms %7d | %8.1f %8.1f %8.1f | %7d", "", r.Absence, r.Lasts, r.Samples, r.Back.P50, r.Back.P99, r.Back.Max, r.Dialled)
}

// resumeInterval is that between tokens. It is short: where nothing was missed, the next one is the sign that all is well.
const resumeInterval = 2 * time.Millisecond

// calmBetween is how long a client has its director between two absences: one that loses it more than once a second dials with pauses.
const calmBetween = 1200 * time.Millisecond

// resuming has a client lose its director in each way.
func (o options) resuming(ctx context.Context, r *report) error {
	if !o.resume {
		return nil
	}
	c, err := start(o.bin, settings(resumeInterval, 1)...)
	if err != nil {
		return err
	}
	defer c.Stop()
	if err := c.Work(ctx, "a"); err != nil {
		return err
	}
	for _, a := range absences {
		line, err := a.measure(ctx, c)
		if err != nil {
			return fmt.Errorf("%s for %v: %w\n%s", a.name, a.lasts, err, c.Logs())
		}
		if err := r.add(line); err != nil {
			return err
		}
	}
	line, err := o.away(ctx)
	if err != nil {
		return fmt.Errorf("memory of streams without clients: %w", err)
	}
	return r.add(line)
}

func (a absence) measure(ctx context.Context, c *outside) (resumed, error) {
	line := resumed{Class: "resume", Absence: a.name, Lasts: milliseconds(a.lasts), Machine: machine()}
	network := newMobile()
	conn, err := connswap.Dial(ctx, c.Addr(), connswap.Options{TLS: c.TLS, Name: "bench", Network: network})
	if err != nil {
		return line, err
	}
	defer conn.Close() //nolint:errcheck // measured already
	ctx, stop := context.WithCancel(ctx)
	stream, err := conn.Generate(ctx, connswap.Request{Prompt: "The bench"})
	if err != nil {
		stop()
		return line, err
	}
	read := newReader()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		read.read(stream)
	}()
	defer func() { stop(); <-ended }()
	var back []time.Duration
	for range a.times {
		if err := sleep(ctx, calmBetween); err != nil {
			return line, err
		}
		took, err := a.once(ctx, network, read)
		if err != nil {
			return line, err
		}
		back = append(back, took)
	}
	line.Samples, line.Back, line.Dialled = len(back), summarize(back), read.takeResumed()
	return line, nil
}

// once returns how long no token came, beyond the absence itself.
func (a absence) once(ctx context.Context, network *mobile, read *reader) (time.Duration, error) {
	read.takePause()
	begun := time.Now()
	if err := a.begin(ctx, network); err != nil {
		return 0, err
	}
	if err := sleep(ctx, a.lasts); err != nil {
		return 0, err
	}
	lasted := time.Since(begun)
	a.end(network)
	if a.lasts == 0 {
		lasted = 0
	}
	err := read.awaitToken(ctx, read.count()+50)
	return read.takePause() - lasted, err
}
