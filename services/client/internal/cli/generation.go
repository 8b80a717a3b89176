package cli

import (
	"context"
	"errors"
	"math"

	"github.com/connswap/connswap/services/client/connswap"
)

// generation is one run of generate.
type generation struct {
	settings settings
	process  Process
	out      output
	report   report
}

// run does all of it and returns the exit code.
func (g *generation) run(ctx context.Context) int {
	conn, err := connswap.Dial(ctx, g.settings.cfg.Target, connswap.Options{
		KeepAlive: g.settings.cfg.KeepAlive, IdleTimeout: g.settings.cfg.IdleTimeout,
		TLS: g.settings.tls, Network: g.process.Network, Name: "client", Key: g.settings.key,
	})
	if err != nil {
		g.out.ended(&g.report, err)
		return g.process.exit(ctx, err, func() string { return g.adviseOnDial(err) })
	}
	err = g.stream(ctx, conn)
	if proof, failed := conn.Proof(); failed == nil {
		g.report.now = proof
	}
	// The director learns of the end, however it came, before this process is gone. If that cannot be sent,
	// it learns of it a little later.
	_ = conn.Close()
	if !errors.Is(err, errNoReader) {
		g.out.ended(&g.report, err)
	}
	return g.process.exit(ctx, err, func() string { return g.adviseOnStream(err) })
}

// stream asks for the text and tells what comes, until the end. The error is nil only after a Done.
func (g *generation) stream(ctx context.Context, conn *connswap.Conn) error {
	if err := g.connected(conn); err != nil {
		return err
	}
	cfg := g.settings.cfg
	stream, err := conn.Generate(ctx, connswap.Request{
		Prompt:    cfg.Prompt,
		MaxTokens: uint32(min(cfg.MaxTokens, math.MaxUint32)), // the director refuses that many as well
		Model:     cfg.Model,
		Seed:      cfg.Seed,
		Priority:  uint8(cfg.Priority), // checked to be one
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	g.report.stream = stream.ID()
	for event, err := range stream.Events() {
		if err != nil {
			return err
		}
		if err := g.tell(conn, event); err != nil {
			return err
		}
	}
	return nil
}

func (g *generation) connected(conn *connswap.Conn) error {
	proof, err := conn.Proof()
	if err != nil {
		return err
	}
	g.report = report{connection: conn.ID(), director: conn.Director(), start: proof, now: proof}
	g.out.connected(&g.report)
	return written(g.out)
}

func (g *generation) tell(conn *connswap.Conn, event connswap.Event) error {
	g.report.enter(event)
	if _, ok := event.(connswap.Done); ok {
		proof, err := conn.Proof()
		if err != nil {
			return err
		}
		g.report.now = proof
	}
	g.out.event(&g.report, event)
	return written(g.out)
}
