package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/services/client/connswap"
)

// load is the streams under measurement, all on one worker.
type load struct {
	open    opener
	conns   []*connswap.Conn
	chats   []*part.Chat // of clients that speak HTTP
	streams []*reader
	running context.Context // of the readers
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// opener opens the stream of that number, and has its reader read it.
type opener func(ctx context.Context, l *load, i int, r *reader) error

// perConn is how many streams share a connection.
const perConn = 100

// site is where a load runs.
type site interface {
	Work(ctx context.Context, worker string, env ...string) error
	Dial(ctx context.Context) (*connswap.Conn, error)
	Logs() string
}

// begin starts worker a, all streams on it, and then worker b.
func begin(ctx context.Context, c site, streams int) (*load, error) {
	return beginWith(ctx, c, streams, native(c))
}

func beginWith(ctx context.Context, c site, streams int, open opener) (*load, error) {
	if err := c.Work(ctx, "a"); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	l := &load{open: open, running: running, stop: stop}
	if err := l.grow(ctx, c, streams); err != nil {
		l.end()
		return nil, err
	}
	return l, c.Work(ctx, "b")
}

// grow opens streams until there are so many, and waits until all of them flow.
func (l *load) grow(ctx context.Context, c site, streams int) error {
	for i := len(l.streams); i < streams; i++ {
		r := newReader()
		if err := l.open(ctx, l, i, r); err != nil {
			return err
		}
		l.streams = append(l.streams, r)
	}
	if err := l.flow(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, c.Logs())
	}
	return nil
}

// native opens streams of the project's own clients.
func native(c site) opener {
	var conn *connswap.Conn
	return func(ctx context.Context, l *load, i int, r *reader) (err error) {
		if i%perConn == 0 {
			if conn, err = c.Dial(ctx); err != nil {
				return err
			}
			l.conns = append(l.conns, conn)
		}
		stream, err := conn.Generate(l.running, connswap.Request{Prompt: prompt(i), Seed: uint64(i)})
		if err == nil {
			l.done.Go(func() { r.read(stream) })
		}
		return err
	}
}

// overHTTP opens streams of clients that speak HTTP.
func overHTTP(addr string) opener {
	return func(ctx context.Context, l *load, i int, r *reader) error {
		conn, err := part.DialChat(ctx, addr)
		if err != nil {
			return err
		}
		l.chats = append(l.chats, conn)
		l.done.Go(func() { r.readHTTP(conn, i) })
		return nil
	}
}

func prompt(i int) string { return fmt.Sprint("The bench of ", i) }

// flow waits until every stream has had three tokens more.
func (l *load) flow(ctx context.Context) error { return l.awaitTokens(ctx, 3) }

func (l *load) awaitTokens(ctx context.Context, more int) error {
	until := make([]int, len(l.streams))
	for i, r := range l.streams {
		until[i] = r.count() + more
	}
	for i, r := range l.streams {
		if err := r.awaitToken(ctx, until[i]); err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return nil
}

// failed returns why a stream is over, if one is.
func (l *load) failed() error {
	for i, r := range l.streams {
		r.mu.Lock()
		err := r.err
		r.mu.Unlock()
		if err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return nil
}

// tokens counts those of all streams.
func (l *load) tokens() int {
	n := 0
	for _, r := range l.streams {
		n += r.count()
	}
	return n
}

func (l *load) end() {
	l.stop()
	for _, chat := range l.chats {
		_ = chat.Close()
	}
	l.done.Wait()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

// awaitRhythm waits until a worker that the streams have left could take them back, and all tokens come in rhythm again.
func (l *load) awaitRhythm(ctx context.Context, c *outside, worker string, interval time.Duration) error {
	if err := l.flow(ctx); err != nil {
		return err
	}
	if err := c.Await(ctx, worker); err != nil {
		return err
	}
	// What follows shall not always hit the same point between two tokens.
	return sleep(ctx, time.Duration(time.Now().UnixNano())%interval)
}

// takePauses returns the longest pause between two tokens of each stream since the last call, beyond the interval.
func (l *load) takePauses(interval time.Duration) []time.Duration {
	pauses := make([]time.Duration, len(l.streams))
	for i, r := range l.streams {
		pauses[i] = r.takePause() - interval
	}
	return pauses
}

// sleep lets all go on undisturbed for a time.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
