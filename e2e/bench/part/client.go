package part

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// conn is one client's connection.
type conn interface {
	// open asks for a stream of streamTokens tokens.
	open(ctx context.Context) (stream, error)
}

// stream is one on its way.
type stream interface {
	// read hands all tokens to r. It returns nil where the relay says that there are no more.
	read(r *reader) error
}

const (
	dialing     = 16               // connections made at once
	flowTimeout = 60 * time.Second // until every stream has had tokens
)

// startClient connects all clients and reads all their streams, until ctx ends or one of them fails. It returns once all
// of them flow.
func startClient(ctx context.Context, l Load, dial func(context.Context) (conn, error)) (running, error) {
	conns := make([]conn, l.Clients)
	var dials errgroup.Group
	dials.SetLimit(dialing)
	for i := range conns {
		dials.Go(func() (err error) {
			conns[i], err = dial(ctx)
			return err
		})
	}
	if err := dials.Wait(); err != nil {
		return running{}, err
	}
	failed := make(chan error, 1)
	m := newMeter(l.Streams)
	for i := range m.readers {
		go func() {
			err := m.readers[i].readAll(ctx, conns[i*l.Clients/l.Streams])
			select {
			case failed <- fmt.Errorf("stream %d: %w", i, err):
			default: // only the first one is of interest
			}
		}()
	}
	deadline := time.After(flowTimeout)
	for !m.flowing() {
		select {
		case err := <-failed:
			return running{}, err
		case <-deadline:
			return running{}, errors.New("not every stream has tokens")
		case <-time.After(10 * time.Millisecond):
		}
	}
	return running{failed: failed, meter: m}, nil
}

// readAll reads one stream after the other.
func (r *reader) readAll(ctx context.Context, c conn) error {
	for {
		s, err := c.open(ctx)
		if err != nil {
			return err
		}
		r.begin()
		if err := s.read(r); err != nil {
			return err
		}
		if err := r.end(); err != nil {
			return err
		}
	}
}
