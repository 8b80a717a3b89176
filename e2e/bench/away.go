package main

import (
	"context"
	"fmt"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

// awayMemory is what a stream holds, in director, worker and client together, while it is read, and when its client is away and
// the worker has made all that the window allows.
type awayMemory struct {
	Class   string  `json:"class"`
	Streams int     `json:"streams"`
	Read    float64 `json:"kib_while_read"` // of each
	Away    float64 `json:"kib_while_away"` // of each
	Tokens  float64 `json:"tokens"`         // of each, by then
	Machine string  `json:"machine"`
}

func (awayMemory) title() string {
	return fmt.Sprintf("%-8s %7s | %14s %14s | %7s", "memory", "streams", "KiB while read", "while away", "tokens")
}

func (m awayMemory) String() string {
	return fmt.Sprintf("%-8s %7d | %14.1f %14.1f | %7.0f", "", m.Streams, m.Read, m.Away, m.Tokens)
}

// elsewhere is a cluster whose clients are on a mobile network.
type elsewhere struct {
	*inside
	network *mobile
}

func (c elsewhere) Dial(ctx context.Context) (*connswap.Conn, error) {
	return connswap.Dial(ctx, c.user, connswap.Options{TLS: c.ids[identity.Client], Name: "bench", Network: c.network})
}

// awayStreams is how many streams lose their clients at once.
const awayStreams = 500

func (o options) away(ctx context.Context) (awayMemory, error) {
	m := awayMemory{Class: "away", Streams: awayStreams, Machine: machine()}
	c, err := startInside(ctx, func(*config.Director) {}, func(w *config.Worker) { w.TokenInterval = intervalFor(awayStreams) })
	if err != nil {
		return m, err
	}
	defer c.end()
	network := newMobile()
	at := elsewhere{c, network}
	l, err := begin(ctx, at, 1)
	if err != nil {
		return m, err
	}
	defer l.end()
	one := inUse()
	each := func() float64 { return (float64(inUse()) - float64(one)) / (awayStreams - 1) / 1024 }
	if err := l.grow(ctx, at, awayStreams); err != nil {
		return m, err
	}
	m.Read = each()
	network.cut(true)
	m.Tokens, err = c.stalled(ctx)
	m.Away = each()
	return m, err
}

// stalled waits until all clients are away and no token comes any more, and returns how many there are, on average.
func (c *inside) stalled(ctx context.Context) (tokens float64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("the streams go on without their clients for a minute"))
	defer cancel()
	for before := uint64(0); ; {
		if err := sleep(ctx, 2*time.Second); err != nil {
			return 0, context.Cause(ctx)
		}
		status, err := c.operator.Status(ctx)
		if err != nil {
			return 0, err
		}
		all, away := countAway(status)
		if away == awayStreams && all == before {
			return float64(all) / awayStreams, nil
		}
		before = all
	}
}

func countAway(status operator.Status) (tokens uint64, away int) {
	for _, connection := range status.Connections {
		for _, s := range connection.Streams {
			tokens += s.Sequence
			if s.Away != nil {
				away++
			}
		}
	}
	return tokens, away
}
