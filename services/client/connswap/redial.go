package connswap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// How a director is dialled again. A network that is back shall be found at once, and one that is not back for long must
// not be flooded: a handshake begins with some 2.5 KB. So attempts become rare, and pings between them tell when the next one
// shall not wait.
const (
	// firstPause is between the first attempts, which go on beside each other; each next one is longer, up to mostPause.
	firstPause = 20 * time.Millisecond
	mostPause  = 100 * time.Millisecond
	// attemptTimeout bounds one attempt.
	attemptTimeout = time.Second
	// pingInterval is between pings, and longer once the director has been away for more than pingShare of them.
	pingInterval = 10 * time.Millisecond
	pingShare    = 2000
	// often is how soon after the last time a lost connection is no accident any more.
	often = time.Second
	// byName is how often an attempt asks for the director's address again, rather than use the one that it had.
	byName = 8
)

// revive returns a carrier other than the one that was lost: one that others have found already, or a new one. It takes as
// long as the director keeps the streams, or until ctx ends.
func (c *Conn) revive(ctx context.Context, lost *carrier) (*carrier, error) {
	select {
	case c.reviving <- struct{}{}:
		defer func() { <-c.reviving }()
	case <-ctx.Done():
		return nil, fault.Ended(ctx)
	}
	c.mu.Lock()
	current, closed := c.carrier, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return nil, fmt.Errorf("connection: %w", ErrClosed)
	case current != lost:
		return current, nil
	}
	if c.lostAt.IsZero() {
		c.lostAt = time.Now()
	}
	if !c.revived.IsZero() && time.Since(c.revived) < often {
		retry.Sleep(ctx, c.backoff.Next()) // a director that ends each connection at once shall not be dialled without end
	} else {
		c.backoff.Reset()
	}
	dialling, cancel := context.WithDeadline(ctx, c.lostAt.Add(c.wait))
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	next, err := c.redial(dialling, lost.quic.RemoteAddr().String())
	switch {
	case err != nil && c.ctx.Err() != nil:
		return nil, fmt.Errorf("connection: %w", ErrClosed)
	case err != nil && ctx.Err() != nil:
		return nil, fault.Ended(ctx)
	case err != nil:
		return nil, fault.New(CodeLost, errors.Join(lost.lost(), err), "no connection any more, nor within %v: %v", c.wait, explain(err))
	}
	c.lostAt, c.revived = time.Time{}, time.Now()
	return next, c.replace(lost, next)
}

// replace has another carrier carry the connection.
func (c *Conn) replace(last, next *carrier) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = next.Close() // nobody wants it any more
		return fmt.Errorf("connection: %w", ErrClosed)
	}
	c.carrier = next
	_ = last.quic.Close(wire.QUICLost, string(CodeLost)) // it is over; this gives its socket back
	return nil
}

// redial connects to the director and says who comes back. Attempts begin one after the other, beside each other, until one
// gets through; the next one at once when a ping is answered. The error is that of the last attempt when ctx has ended, or one
// that no further attempt would change.
func (c *Conn) redial(ctx context.Context, addr string) (*carrier, error) {
	attempts, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	type result struct {
		*carrier
		err error
	}
	results := make(chan result)
	defer running.Wait()
	defer cancel()
	attempt := func(named bool) {
		ctx, cancel := context.WithTimeout(attempts, attemptTimeout)
		defer cancel()
		r := result{}
		if named {
			r.carrier, r.err = quicnet.DialByName(ctx, c.opts.Network, c.target, func(ctx context.Context, addr string) (*carrier, error) {
				return connect(ctx, addr, c.opts)
			})
		} else {
			r.carrier, r.err = connect(ctx, addr, c.opts)
		}
		select {
		case results <- r:
		case <-attempts.Done():
			if r.err == nil {
				_ = r.Close() // another one was first
			}
		}
	}
	var last error
	answered := make(chan struct{})
	quiet := time.Now().Add(attemptTimeout) // no pings until then: the attempts that have begun may still succeed
	pause := firstPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			if last == nil {
				last = ctx.Err()
			}
			return nil, last
		case <-timer.C:
			named := n%byName == 0
			running.Go(func() { attempt(named) })
			if now := time.Now(); now.After(quiet) {
				next := now.Add(pause)
				running.Go(func() { c.ping(attempts, addr, next, answered) })
			}
			timer.Reset(pause)
			n, pause = n+1, min(pause*5/4, mostPause)
		case <-answered:
			quiet = time.Now().Add(attemptTimeout)
			timer.Reset(0)
		case r := <-results:
			if r.err == nil {
				r.err = r.hello(ctx, &wirepb.ClientHello{
					Version: wire.Version, Client: wire.Text(c.opts.Name), Resumable: true, Key: c.opts.Key,
					Return: &wirepb.Return{ConnectionId: c.id, Secret: c.secret},
				})
				if r.err == nil {
					return r.carrier, nil
				}
				_ = r.Close() // its error is the one that matters
			}
			if last = r.err; final(last) {
				return nil, last
			}
		}
	}
}

// ping asks until the next attempt begins whether the director can be reached. An answer goes to answered.
func (c *Conn) ping(ctx context.Context, addr string, next time.Time, answered chan<- struct{}) {
	ctx, cancel := context.WithDeadline(ctx, next)
	defer cancel()
	if quicnet.Ping(ctx, c.opts.Network, addr, max(pingInterval, time.Since(c.lostAt)/pingShare)) != nil {
		return
	}
	select {
	case answered <- struct{}{}:
	case <-ctx.Done():
	}
}

// final reports whether no further attempt would end otherwise.
func final(err error) bool {
	var e *Error
	if !errors.As(explain(err), &e) {
		return false
	}
	return e.Code == CodeUnauthorized || e.Code == CodeVersion
}
