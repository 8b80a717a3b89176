package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/retry"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	// pullIdle is how soon a cut is noticed.
	pullIdle = 2 * time.Second
	// goodbye is how long a pull that has everything waits until the source knows it.
	goodbye = time.Second
	// firstWait and lastWait bound the time between two attempts.
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
	// maxFrame has room for a chunk that could not be compressed, its seal, and what is around.
	maxFrame = chunkSize + overhead + 1<<10
)

// pullsAtOnce bounds what states that arrive cost a process in memory and time, however many are on their way.
const pullsAtOnce = 4

// PullerConfig says who pulls, and how.
type PullerConfig struct {
	Network  quicnet.Network
	TLS      identity.Source // of the node that pulls
	Name     string          // the label or id that tokens have as their target
	MaxState int             // bytes of a state; more is refused
	Log      *zap.Logger
}

// Puller fetches snapshots from other nodes, a few at a time, with one connection to each. It is safe for concurrent use.
type Puller struct {
	cfg   PullerConfig
	pool  connPool
	slots chan struct{} // full while pullsAtOnce attempts are under way
}

// NewPuller returns a Puller. Close it once all calls of Pull have returned.
func NewPuller(cfg PullerConfig) *Puller {
	p := &Puller{cfg: cfg, slots: make(chan struct{}, pullsAtOnce)}
	p.pool = connPool{dial: p.dial, to: make(map[peer]*sharedConn)}
	return p
}

// Close closes the connections.
func (p *Puller) Close() { p.pool.Close() }

func (p *Puller) dial(ctx context.Context, to peer) (*quicnet.Conn, error) {
	conf := quicnet.MgmtConfig(pullIdle)
	conf.HandshakeIdleTimeout = pullIdle
	return quicnet.Dial(ctx, p.cfg.Network, to.addr, identity.ClientTLS(p.cfg.TLS, wire.ALPNMgmt, to.role), conf)
}

// Pull fetches the snapshot that fetch tells of from a node of the given role. It goes on after a lost connection
// for as long as ctx lives. Whatever another attempt would not change is a *wire.Error: a refusal, as the source
// sent it, CodeLimit for a state that is too large, CodeProtocol for one that is not right.
//
// Whether the snapshot is of the sequence that was expected is for the caller to see.
func (p *Puller) Pull(ctx context.Context, from identity.Role, fetch *wirepb.Fetch) (*Snapshot, error) {
	d := newDownload(fetch.GetToken(), p.cfg.MaxState)
	if err := p.persist(ctx, from, fetch, d); err != nil {
		return nil, fmt.Errorf("pulling the state of session %d from %s: %w", fetch.GetSession(), fetch.GetAddr(), err)
	}
	return &d.snapshot, nil
}

// persist tries until d is complete, or a refusal, or the end of ctx.
func (p *Puller) persist(ctx context.Context, from identity.Role, fetch *wirepb.Fetch, d *download) error {
	again := retry.Backoff{First: firstWait, Most: lastWait}
	for last := error(nil); ; {
		had := d.next()
		err := p.attempt(ctx, from, fetch, d)
		var final *wire.Error
		if err == nil || errors.As(err, &final) {
			return err
		}
		if d.next() > had {
			again.Reset()
		}
		if ctx.Err() != nil && last != nil {
			err = last // that this attempt was broken off says nothing
		}
		last = err
		if !retry.Sleep(ctx, again.Next()) {
			return fmt.Errorf("%w (the last attempt: %w)", context.Cause(ctx), err)
		}
		p.cfg.Log.Info("pulling a state again", zap.String("addr", fetch.GetAddr()), zap.Uint64("session", fetch.GetSession()),
			zap.Uint32("chunk", d.next()), zap.Error(err))
	}
}

// attempt fetches with one stream, once it has a slot, what d has not yet.
func (p *Puller) attempt(ctx context.Context, from identity.Role, fetch *wirepb.Fetch, d *download) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	to := peer{from, fetch.GetAddr()}
	conn, err := p.pool.acquire(ctx, to)
	if err != nil {
		return err
	}
	defer p.pool.release(to, conn)
	stream, err := conn.conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	giveUp := func() { // has no effect on what is over; unblocks the reads below
		stream.CancelRead(wire.StreamCancel)
		stream.CancelWrite(wire.StreamCancel)
	}
	defer giveUp()
	defer context.AfterFunc(ctx, giveUp)()
	ask := &wirepb.Pull{Secret: fetch.GetToken().GetSecret(), Puller: wire.Text(p.cfg.Name), FirstChunk: d.next()}
	if _, err := stream.Write(wire.Append(nil, ask)); err != nil {
		return err
	}
	r := wire.NewReaderSize(stream, maxFrame, wire.SmallBuffer)
	if err := d.receive(r); err != nil {
		return fault(err)
	}
	if _, err := stream.Write(wire.Append(nil, &wirepb.PullDone{})); err != nil || stream.Close() != nil {
		return nil // the source gives its snapshot up by itself, later
	}
	if stream.SetReadDeadline(time.Now().Add(goodbye)) == nil {
		_, _ = r.Next() // the stream's end; without it nothing is lost
	}
	return nil
}

// fault makes what is the peer's fault, not the network's, final.
func fault(err error) error {
	for _, known := range []error{
		io.EOF, io.ErrUnexpectedEOF, wire.ErrTooLarge, wire.ErrMalformed, wire.ErrUnknownType, wire.ErrUnexpected,
	} {
		if errors.Is(err, known) {
			return wire.Errorf(wire.CodeProtocol, "%v", err)
		}
	}
	return err
}
