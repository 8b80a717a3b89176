package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/services/client/connswap"
)

const (
	seeds    = 8   // different texts
	longest  = 300 // tokens of a stream
	patience = time.Minute
)

// key says which text a stream has to have.
type key struct {
	model string
	seed  uint64
}

func (k key) request(tokens int) connswap.Request {
	return connswap.Request{Model: k.model, Prompt: "The river", MaxTokens: uint32(tokens), Seed: k.seed}
}

// learn returns the texts of all models, as they are while nothing fails.
func learn(ctx context.Context, c *cluster.Cluster) (map[key]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	conn, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // all is read
	var mu sync.Mutex
	texts := map[key]string{}
	group, ctx := errgroup.WithContext(ctx)
	for _, model := range models {
		for seed := range uint64(seeds) {
			k := key{model, seed + 1}
			group.Go(func() error {
				text, err := whole(ctx, conn, k.request(longest))
				mu.Lock()
				defer mu.Unlock()
				texts[k] = text
				return err
			})
		}
	}
	return texts, group.Wait()
}

// whole reads a stream to its end.
func whole(ctx context.Context, conn *connswap.Conn, r connswap.Request) (string, error) {
	stream, err := conn.Generate(ctx, r)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for event, err := range stream.Events() {
		if err != nil {
			return "", err
		}
		if t, ok := event.(connswap.Token); ok {
			all.WriteString(t.Text)
		}
	}
	return all.String(), nil
}

// load is the clients.
type load struct {
	cluster *cluster.Cluster
	texts   map[key]string

	complete, left, stalled, swaps, ran atomic.Int64
}

func (l *load) String() string {
	return fmt.Sprintf("%d streams complete, %d left by their clients, %d paused by them, %d swaps seen, %d runs of the client",
		l.complete.Load(), l.left.Load(), l.stalled.Load(), l.swaps.Load(), l.ran.Load())
}

// client connects, reads some streams and leaves, again and again, until ctx ends.
func (l *load) client(ctx context.Context, number uint64) error {
	r := rand.New(rand.NewPCG(number, 1))
	for ctx.Err() == nil {
		if err := l.visit(ctx, r); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// visit is one connection of a client. Some end it in the middle of a stream.
func (l *load) visit(ctx context.Context, r *rand.Rand) error {
	conn, err := l.cluster.Dial(ctx)
	if err != nil {
		return fmt.Errorf("dialing: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	id := conn.ID()
	proof, err := conn.Proof()
	if err != nil {
		return err
	}
	for range 1 + r.IntN(4) {
		gone, err := l.stream(ctx, conn, r)
		if err != nil || gone {
			return err
		}
	}
	if now, err := conn.Proof(); err != nil || now != proof || conn.ID() != id {
		return fmt.Errorf("connection %s is another one: %v, %w", id, now, err)
	}
	return nil
}

// stream reads one stream, as people do: some stop in the middle, and of these some leave.
func (l *load) stream(ctx context.Context, conn *connswap.Conn, r *rand.Rand) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	k, tokens := key{models[r.IntN(len(models))], uint64(r.IntN(seeds)) + 1}, 10+r.IntN(longest-10)
	pause, leave := -1, -1
	switch r.IntN(6) {
	case 0:
		pause = r.IntN(tokens)
	case 1:
		leave = r.IntN(tokens)
	}
	stream, err := conn.Generate(ctx, k.request(tokens))
	if err != nil {
		return false, fmt.Errorf("asking: %w", err)
	}
	of, text, read := l.texts[k], "", 0
	for event, err := range stream.Events() {
		if err != nil {
			return false, fmt.Errorf("%s, stream %d, after %d tokens: %w", conn.ID(), stream.ID(), read, err)
		}
		switch e := event.(type) {
		case connswap.Assigned:
			if engines[e.Worker] != k.model {
				return false, fmt.Errorf("%s, stream %d: of %s, on %s, which has not got it", conn.ID(), stream.ID(), k.model, e.Worker)
			}
		case connswap.Swapped:
			l.swaps.Add(1)
		case connswap.Token:
			text += e.Text
			if read++; !strings.HasPrefix(of, text) {
				return false, fmt.Errorf("%s, stream %d: token %d is %q, of another text", conn.ID(), stream.ID(), e.Sequence, e.Text)
			}
		}
		switch read {
		case pause:
			l.stalled.Add(1)
			pause = -1
			select {
			case <-time.After(time.Duration(r.IntN(4000)) * time.Millisecond):
			case <-ctx.Done():
			}
		case leave:
			l.left.Add(1)
			return r.IntN(2) == 0, nil
		}
	}
	if read != tokens {
		return false, fmt.Errorf("%s, stream %d: %d of %d tokens", conn.ID(), stream.ID(), read, tokens)
	}
	l.complete.Add(1)
	return false, nil
}

// programs runs the client program, again and again.
func (l *load) programs(ctx context.Context) error {
	for ctx.Err() == nil {
		out, err := l.cluster.Binary(ctx, "client", "generate", "The river").CombinedOutput()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return errors.Join(fmt.Errorf("client generate: %w", err), errors.New(string(out)))
		}
		l.ran.Add(1)
	}
	return nil
}
