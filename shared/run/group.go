// Package run holds the actors of a process together: they start and stop as one.
package run

import (
	"context"
	"errors"
	"fmt"
)

// Group is a set of named actors. The return of any of them, nil included, stops all of them; so does the
// caller's context.
//
// They start together and stop one after the other, in the reverse order of adding: the last one added is
// cancelled first, and has returned before the next one is cancelled. What others rely on is added first.
//
// A Group is for one Run, and Add comes before it.
type Group struct {
	actors []*actor
}

type actor struct {
	name   string
	run    func(context.Context) error
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when run has returned
	err    error         // readable once done is closed
}

// errStop is the cause that an actor sees where no other actor's error stopped the group.
var errStop = errors.New("stopping")

// Add adds an actor. run works until its context is cancelled; an error that it returns then counts, unless
// it is the context's own.
func (g *Group) Add(name string, run func(ctx context.Context) error) {
	g.actors = append(g.actors, &actor{name: name, run: run, done: make(chan struct{})})
}

// Run starts the actors and returns when all of them have. The error is the first that any of them returned,
// with the actor's name. The end of ctx is no error.
//
// The actors' contexts carry the values of ctx, but end in the group's order, not with ctx.
func (g *Group) Run(ctx context.Context) error {
	returned := make(chan *actor, len(g.actors))
	for _, a := range g.actors {
		a.start(ctx, returned)
	}
	first := g.wait(ctx, returned)
	cause := errStop
	switch {
	case first != nil:
		cause = first
	case ctx.Err() != nil:
		cause = context.Cause(ctx)
	}
	for i := len(g.actors) - 1; i >= 0; i-- {
		g.actors[i].cancel(cause)
		<-g.actors[i].done
	}
	for range len(returned) {
		if err := (<-returned).result(cause); first == nil {
			first = err
		}
	}
	return first
}

// wait blocks until the group has to stop, and returns the error of the actor that stopped it, if one did.
func (g *Group) wait(ctx context.Context, returned <-chan *actor) error {
	if len(g.actors) == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case a := <-returned:
		return a.result(nil)
	}
}

func (a *actor) start(ctx context.Context, returned chan<- *actor) {
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	a.cancel = cancel
	go func() {
		a.err = a.run(own)
		returned <- a
		close(a.done)
	}()
}

// result is the actor's error with its name; nil where it only repeats why it was stopped.
func (a *actor) result(cause error) error {
	if a.err == nil || cause != nil && (errors.Is(a.err, context.Canceled) || errors.Is(a.err, cause)) {
		return nil
	}
	return fmt.Errorf("%s: %w", a.name, a.err)
}
