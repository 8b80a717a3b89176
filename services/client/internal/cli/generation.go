package cli

import (
	"context"
	"errors"
	"fmt"
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

// errNoReader ends a generation whose output nobody reads any more.
var errNoReader = errors.New("the output was closed")

// run does all of it and returns the exit code.
func (g *generation) run(ctx context.Context) int {
	conn, err := connswap.Dial(ctx, g.settings.cfg.Target, connswap.Options{
		TLS: g.settings.tls, Network: g.process.Network, Name: "client",
	})
	if err != nil {
		g.out.ended(&g.report, err)
		return g.exit(ctx, err, func() string { return g.adviseOnDial(err) })
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
	return g.exit(ctx, err, func() string { return g.adviseOnStream(err) })
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
		Seed:      cfg.Seed,
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
	return g.written()
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
	return g.written()
}

// written is an error if the output is broken.
func (g *generation) written() error {
	err := g.out.broken()
	if err != nil && readerLeft(err) {
		return errNoReader
	}
	if err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// exit turns how it ended into the exit code, and says on stderr what to do about it.
func (g *generation) exit(ctx context.Context, err error, advice func() string) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errNoReader):
		return exitCancelled // quietly
	case ctx.Err() != nil:
		g.process.complain("cancelled")
		return exitCancelled
	default:
		g.process.complain("%s", advice())
		return exitFailed
	}
}
