package part

import (
	"context"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

// connswapWorker is the project's worker with an engine whose tokens say when they were due. s.Target is where it
// registers.
func connswapWorker(ctx context.Context, s Setup) (running, error) {
	e := stepped{newSteps(ctx, s.Load.interval())}
	if s.Load.Rate == 0 {
		return s.work(ctx, "a", s.Load.Streams+1, e)
	}
	return s.work(ctx, "a", s.Load.Streams+1, &stepper{stepped: e, next: e.steps.present.Load()})
}

// deviceWorker is the project's worker with a device of its own.
func deviceWorker(ctx context.Context, s Setup) (running, error) {
	return s.work(ctx, s.Device.Label, s.Device.Capacity, newDevice(ctx, s.Device))
}

func (s Setup) work(ctx context.Context, label string, capacity int, e engine.Engine) (running, error) {
	tls, err := s.identity(identity.Worker)
	if err != nil {
		return running{}, err
	}
	cfg := config.DefaultWorker()
	cfg.Label, cfg.Directors, cfg.UserAddr, cfg.MgmtAddr = label, []string{s.Target}, s.Listen[0], s.Listen[1]
	cfg.TokenInterval, cfg.Capacity = 0, capacity // the engine paces
	w, err := worker.New(cfg, worker.Deps{TLS: tls, Engine: e})
	if err != nil {
		return running{}, err
	}
	return background(func() error { return w.Run(ctx) }), nil
}

// stepped is an engine that gives each generation a token a step.
type stepped struct{ steps *steps }

func (e stepped) Name() string        { return "stepped" }
func (e stepped) Fingerprint() string { return "stepped/1" }

func (e stepped) Open(_ context.Context, req engine.Request, prefix []engine.Chunk, _ engine.Progress) (engine.Generation, error) {
	return &generation{steps: e.steps, due: e.steps.last.Load(), made: uint64(len(prefix)), limit: engine.NewLimit(req, len(prefix), 1)}, nil
}

// stepper is a stepped that has steps, as it has not flat out.
type stepper struct {
	stepped
	next *step // that Step waits for
}

func (e *stepper) Step(ctx context.Context) error {
	if _, err := e.next.wait(ctx); err != nil {
		return err
	}
	e.next = e.steps.present.Load()
	return nil
}

type generation struct {
	steps *steps
	made  uint64
	limit engine.Limit
	text  []byte
	due   int64 // the step of the last token; at first that before it
}

func (g *generation) TryNext() (engine.Chunk, error) {
	due := g.steps.last.Load()
	if g.made == 0 {
		due = time.Now().UnixNano() // the first one is due at once
	} else if due == g.due {
		return engine.Chunk{}, engine.ErrNotYet
	}
	if err := g.limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	if g.made > 0 {
		g.due = due
	}
	return g.chunk(due), nil
}

func (g *generation) Next(ctx context.Context) (engine.Chunk, error) {
	if err := g.limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	due, err := g.steps.next(ctx, g.made)
	if err != nil {
		return engine.Chunk{}, err
	}
	return g.chunk(due), nil
}

// chunk makes a token that was due at a time.
func (g *generation) chunk(due int64) engine.Chunk {
	g.made++
	g.text = appendText(g.text[:0], due, g.made)
	return engine.Chunk{Text: g.text}
}

func (g *generation) Close() error { return nil }

// connswapClient uses the project's client package.
func connswapClient(ctx context.Context, s Setup) (running, error) {
	tls, err := s.identity(identity.Client)
	if err != nil {
		return running{}, err
	}
	return startClient(ctx, s.Load, func(ctx context.Context) (conn, error) {
		c, err := connswap.Dial(ctx, s.Target, connswap.Options{TLS: tls, Name: "bench"})
		return connswapConn{c}, err
	})
}

type connswapConn struct{ *connswap.Conn }

func (c connswapConn) open(ctx context.Context) (stream, error) {
	s, err := c.Generate(ctx, connswap.Request{Prompt: "bench", MaxTokens: streamTokens})
	if err != nil {
		return nil, err
	}
	return connswapStream{s}, nil
}

type connswapStream struct{ *connswap.Stream }

func (s connswapStream) read(r *reader) error {
	for token, err := range s.Tokens() {
		if err != nil {
			return err
		}
		if err := take(r, token.Text); err != nil {
			return err
		}
	}
	return nil
}
