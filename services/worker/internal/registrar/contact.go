package registrar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

var (
	// errDone is why a contact ends from this side.
	errDone = errors.New("leaving")
	// errOther is why a contact gives up its place for one at another address of the same director.
	errOther = errors.New("the director cannot reach the worker at the address that it sees from here")
)

const (
	// maxComplaints bounds how many different errors are told before they start over.
	maxComplaints = 16
	// A director that was there a moment ago is likely to come back soon: for lately after the end of a registration
	// nobody waits longer than soon between two attempts.
	lately, soon = 10 * time.Second, 250 * time.Millisecond
	// askAgain is how often an address is asked whose director has the worker's registration by another address.
	askAgain = time.Minute
)

// contact is one address of a director. It registers there and renews that whenever it is lost, unless the director that
// answers has the worker's registration already. The goroutine of run owns it, except where a field says otherwise.
type contact struct {
	registrar  *Registrar
	addr       string
	stop       context.CancelFunc
	log        *zap.Logger
	complaints map[string]bool // reasons that were logged since the last registration
	backoff    retry.Backoff
	last       string    // instance of the director's process that answered last
	ended      time.Time // the last registration, if there was one
	stepped    time.Time // when it last gave its place up for another address; owned by whoever listens to the director

	renewed chan struct{} // capacity 1: the models are others; for any goroutine

	look chan struct{} // capacity 1: a link has ended, see whether the director is still the same; for any goroutine

	mu       sync.Mutex
	instance string // of the director's process at which it is registered; empty if unknown or at none
}

func newContact(r *Registrar, addr string, stop context.CancelFunc) *contact {
	return &contact{
		registrar: r, addr: addr, stop: stop, look: make(chan struct{}, 1), renewed: make(chan struct{}, 1), log: r.deps.Log.With(zap.String("address", addr)),
		backoff: retry.Backoff{First: firstWait, Most: lastWait},
	}
}

// wake says that a director's process may have ended.
func (c *contact) wake(instance string) {
	c.mu.Lock()
	other := instance != "" && c.instance != "" && c.instance != instance
	c.mu.Unlock()
	if other {
		return
	}
	select {
	case c.look <- struct{}{}:
	default:
	}
}

// renew says that the models are others.
func (c *contact) renew() {
	select {
	case c.renewed <- struct{}{}:
	default:
	}
}

// errRenewed is why a registration ends to which another one follows at once.
var errRenewed = errors.New("the models have changed")

// hasModels waits until the worker has models.
func (c *contact) hasModels(ctx context.Context) {
	for ctx.Err() == nil && len(c.registrar.deps.Models()) == 0 {
		select {
		case <-c.renewed:
		case <-ctx.Done():
		}
	}
}

// run keeps the worker registered at this address until ctx ends.
func (c *contact) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.hasModels(ctx)
		claimed, err := c.keepRegistered(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, errRenewed):
		case claimed != nil:
			c.standBy(ctx, claimed)
		case errors.Is(err, errOther):
			c.backOff(ctx) // the other one is faster
		default:
			c.complain(err)
			c.backOff(ctx)
		}
	}
}

// standBy waits while the contact at another address has the registration at this one's director.
func (c *contact) standBy(ctx context.Context, claimed *place) {
	c.complaints = nil
	c.backoff.Reset()
	timer := time.NewTimer(askAgain)
	defer timer.Stop()
	select {
	case <-claimed.freed:
	case <-timer.C:
	case <-ctx.Done():
	}
	c.registrar.places.stopWaiting(claimed)
}

// backOff waits before the next attempt.
func (c *contact) backOff(ctx context.Context) {
	wait := c.backoff.Next()
	if !c.ended.IsZero() && time.Since(c.ended) < lately {
		wait = min(wait, soon)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.look:
	case <-ctx.Done():
	}
}

// complain logs an error the first time that it stands between the worker and the director.
func (c *contact) complain(err error) {
	reason := reasonOf(err)
	if c.complaints[reason] {
		return
	}
	if c.complaints == nil || len(c.complaints) >= maxComplaints {
		c.complaints = make(map[string]bool)
	}
	c.complaints[reason] = true
	c.log.Warn("not registered at director", zap.Error(err))
}

// reasonOf tells errors apart. Those of the operating system also name a port of this side, another each time.
func reasonOf(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// keepRegistered registers and sends heartbeats until that fails or ctx ends. If another contact has the place at this director,
// keepRegistered registers nowhere and returns that place.
func (c *contact) keepRegistered(ctx context.Context) (claimed *place, err error) {
	cfg, deps := c.registrar.cfg, c.registrar.deps
	dialling, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, errors.New("no answer"))
	defer cancel()
	conn, err := quicnet.Dial(dialling, deps.Network, c.addr, deps.TLS, quicnet.MgmtConfig(cfg.Interval+cfg.Timeout))
	if err != nil {
		return nil, fmt.Errorf("dialling: %w", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	unblocked := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(unblocked)
		_ = conn.CloseWithError(wire.QUICShutdown, string(wire.CodeShutdown)) // always nil
	})
	defer func() {
		end(errDone)
		<-unblocked
		_ = conn.Close(wire.QUICShutdown, "") // the socket; all else is closed
	}()
	director, err := c.whose(dialling, conn)
	if err != nil {
		return nil, fmt.Errorf("asking who it is: %w", err)
	}
	at, mine := c.registrar.places.claim(director)
	if !mine {
		return at, nil
	}
	defer func() { c.registrar.places.free(director) }()
	stream, frames, welcome, err := c.introduce(dialling, conn)
	if err != nil {
		return nil, err
	}
	if instance := welcome.GetDirectorInstance(); instance != "" && instance != director {
		if !c.registrar.places.rename(director, instance) {
			return nil, errOther
		}
		director = instance
	}
	c.begin(at, welcome)
	defer c.finish()

	h := &heartbeats{contact: c, place: at, stream: stream}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { end(h.listen(frames)) })
	running.Go(func() { end(c.watchDirector(ctx, welcome.GetDirectorInstance())) })
	running.Go(func() {
		select {
		case <-c.renewed:
			end(errRenewed)
		case <-ctx.Done():
		}
	})
	end(h.beat(ctx))
	_ = conn.CloseWithError(wire.QUICShutdown, string(wire.CodeShutdown)) // always nil
	return nil, context.Cause(ctx)
}

// whose returns what the place at this address is called before the worker is registered. Where there are several addresses
// that is the instance of the director's process, which is asked for: it may have the worker's registration already.
func (c *contact) whose(ctx context.Context, conn *quicnet.Conn) (string, error) {
	if !c.registrar.severalAddresses() {
		return c.addr, nil
	}
	who, err := mgmt.Ask(ctx, conn)
	return cmp.Or(who.GetInstance(), c.addr), err
}

// begin records that the worker is registered.
func (c *contact) begin(at *place, welcome *wirepb.Registered) {
	c.log.Info("registered", zap.String("director", wire.Text(welcome.GetDirectorId())))
	instance := welcome.GetDirectorInstance()
	if c.last != "" && c.last != instance {
		c.registrar.deps.Replaced(c.last)
	}
	c.last = instance
	c.complaints = nil
	c.backoff.Reset()
	c.registrar.places.stand(at)
	c.mu.Lock()
	c.instance = instance
	c.mu.Unlock()
	select { // what was to be looked at is over
	case <-c.look:
	default:
	}
}

// finish records that the worker is registered no more.
func (c *contact) finish() {
	c.ended = time.Now()
	c.mu.Lock()
	c.instance = ""
	c.mu.Unlock()
}

// watchDirector asks who is at the address whenever a link has ended, and returns when nobody answers, or another process than the
// one at which the worker is registered: that is known long before a heartbeat stays unanswered.
func (c *contact) watchDirector(ctx context.Context, instance string) error {
	cfg, deps := c.registrar.cfg, c.registrar.deps
	for {
		select {
		case <-c.look:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		asking, cancel := context.WithTimeout(ctx, cfg.Timeout)
		who, err := mgmt.Health(asking, deps.Network, c.addr, deps.TLS)
		cancel()
		switch {
		case err != nil:
			return fmt.Errorf("its link ended: %w", err)
		case instance != "" && who.GetInstance() != instance:
			return errors.New("the director has been started anew")
		}
	}
}

// introduce registers the worker, with the drain mark that it has now, and returns the stream on which heartbeats go.
func (c *contact) introduce(ctx context.Context, conn *quicnet.Conn) (*quic.Stream, *wire.Reader, *wirepb.Registered, error) {
	register := proto.CloneOf(c.registrar.cfg.Register)
	select { // what is registered now is the newest
	case <-c.renewed:
	default:
	}
	register.Models, register.Server = c.registrar.deps.Models(), wire.Text(c.registrar.deps.Server())
	register.DrainedBy = c.registrar.deps.DrainedBy()
	register.Drained = register.DrainedBy != ""
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("opening a stream: %w", err)
	}
	frames := wire.NewReader(stream, wire.MaxControl)
	welcome, err := c.register(stream, frames, register)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("registering: %w", err)
	}
	return stream, frames, welcome, nil
}

// register sends Register and waits for the answer, with a deadline.
func (c *contact) register(stream *quic.Stream, frames *wire.Reader, register *wirepb.Register) (*wirepb.Registered, error) {
	if err := stream.SetDeadline(time.Now().Add(c.registrar.cfg.Timeout)); err != nil {
		return nil, err
	}
	if _, err := stream.Write(wire.Append(nil, register)); err != nil {
		return nil, err
	}
	welcome, err := wire.ReadMessage[*wirepb.Registered](frames)
	if err != nil {
		return nil, err
	}
	return welcome, stream.SetDeadline(time.Time{})
}
