// Package attempt is one worker serving one stream in one epoch: what a director tells the worker about the stream, and what the worker answers.
//
// The source and the target of a handover are two attempts of the same type. An attempt is made when a place at a worker has been granted, by the owner
// of the stream, who draws its epoch; it ends with Leave.
package attempt

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/placement"
	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Leg carries the stream to its client.
type Leg interface {
	// Push hands what is new in the log to the client. It never blocks.
	Push()
}

// Stream is what all attempts at a stream have in common.
type Stream struct {
	ID           uint64 // that workers know it by
	Connection   uint64 // number of its client's connection in this director
	ConnectionID string
	StreamID     uint64
	Request      *wirepb.Request
	Log          *stream.Log
	Tokens       *token.Issuer
	Leg          Leg
	Post         func(event any) // tells the owner of the stream; never blocks

	// Owned by the owner of the stream, with what is below.
	Began string // fingerprint of the model that made the end of the text; empty before there is any
	Tries uint32 // how often in a row engines have said that they would make another text

	epoch uint64 // drawn last
}

// NextEpoch draws an epoch: for a place that was granted, or to make all tokens useless that lead to it or to one
// before it.
func (s *Stream) NextEpoch() uint64 {
	s.epoch++
	return s.epoch
}

// LastEpoch returns the epoch that was drawn last.
func (s *Stream) LastEpoch() uint64 { return s.epoch }

// Allow makes a migration token for the target, and gives it to the worker that holds what the token allows.
func (s *Stream) Allow(holder *link.Link, purpose wirepb.Purpose, source, target string, from, to uint64) (*wirepb.Token, error) {
	t, err := s.Issue(purpose, source, target, from, to)
	if err != nil {
		return nil, err
	}
	holder.Send(&wirepb.Allow{Token: t})
	return t, nil
}

// Issue makes a migration token for the target. Whoever holds what it allows has to be given it.
func (s *Stream) Issue(purpose wirepb.Purpose, source, target string, from, to uint64) (*wirepb.Token, error) {
	return s.Tokens.Issue(token.Claims{
		Purpose: purpose, Session: s.ID, ConnectionID: s.ConnectionID, StreamID: s.StreamID,
		Source: source, Target: target, FromEpoch: from, ToEpoch: to,
	})
}

// What the worker of an attempt has said, for the owner of the stream. However often a worker says something, each of
// these waits for the owner once.
type (
	// Begun says that the worker begins, and where.
	Begun struct {
		*Attempt
		M *wirepb.Begin
	}
	// Ended says that the generation has come to its end.
	Ended struct {
		*Attempt
		M *wirepb.End
	}
	// Failed says that the attempt could not be made, or not be brought to its end.
	Failed struct {
		*Attempt
		Declined bool // the worker has not even begun
		Err      *wire.Error
	}
	// Prepared says that the attempt's Prepared has something new.
	Prepared struct{ *Attempt }
	// Captured says that the attempt's Captured has something new.
	Captured struct{ *Attempt }
	// Progressing says that the attempt's Progressing has something new.
	Progressing struct{ *Attempt }
)

// Attempt is safe for concurrent use: the goroutines of the link call what the worker said, the owner of the stream
// calls the rest.
type Attempt struct {
	*Stream

	// Copies of the Stream's, beside dirty: with many streams most of what a token costs is to get such things into the
	// cache.
	log   *stream.Log
	leg   Leg
	dirty atomic.Bool // a token has come since the last flush

	Epoch   uint64
	Place   *placement.Request // at the worker
	Link    *link.Link         // to the worker
	Latency *routing.Latency   // hears of the stream's rhythm; nil if nobody wants to know
	Pledge  Pledge             // what the worker promises; owned by the owner of the stream

	mu       sync.Mutex
	over     bool             // the worker's last word has come
	prepared *wirepb.Prepared // newest, unless the owner has taken it
	captured *wirepb.Captured // likewise
	progress *wirepb.Progressing
}

var _ link.Sink = (*Attempt)(nil)

// New returns an attempt that the worker does not know of yet.
func New(s *Stream, place *placement.Request, l *link.Link, epoch uint64) *Attempt {
	return &Attempt{Stream: s, log: s.Log, leg: s.Leg, Place: place, Link: l, Epoch: epoch}
}

// Pledge is what a worker's engine promises for a stream.
type Pledge struct {
	Continuity uint32 // class, where the worker is lost: see wirepb.Request
	Portable   bool   // another fingerprint will do
	Resumed    uint32 // class in which the worker goes on behind what was there
}

// Pledged takes over what the worker's word that it begins says of that; of a model that says nothing, what is promised of it.
func (a *Attempt) Pledged(m *wirepb.Begin) {
	p := m.GetPledge()
	if p == nil {
		class := a.Model().Continuity
		a.Pledge = Pledge{Continuity: class, Resumed: class}
		return
	}
	a.Pledge = Pledge{min(p.GetContinuity(), wire.ContinuityExact), p.GetPortable(), min(p.GetResumed(), wire.ContinuityExact)}
}

// Model is the one of the worker's that serves the stream.
func (a *Attempt) Model() routing.Model {
	m, _ := a.Link.Model(a.Request.GetModel()) // a worker without it would not have been chosen
	return m
}

// Stateful reports whether a state of the engine moves with the stream.
func (a *Attempt) Stateful() bool { return a.Model().Stateful }

// Leave takes the stream back from the worker. The place is given back by whoever was granted it.
func (a *Attempt) Leave() { a.Link.Cancel(a.ID, a.Epoch) }

// Attach gives the worker the request and the accepted prefix, behind which it begins, and opens the log for it.
// checkpoint says where the engine's state is; nil if there is none.
func (a *Attempt) Attach(checkpoint *wirepb.Fetch) {
	credit := a.Log.Expect(a.Epoch)
	m := a.attach()
	m.Credit, m.Checkpoint = credit, checkpoint
	a.Link.Attach(m, a)
}

// Standby has the worker prepare the attempt, and generate nothing before Pivot. The secret is that of a token that the
// worker was told to allow. along says that it is to make the text meanwhile, and not only to get ready.
func (a *Attempt) Standby(secret []byte, along bool) {
	m := a.attach()
	m.Standby, m.Secret, m.Along = true, secret, along
	a.Link.Attach(m, a)
}

func (a *Attempt) attach() *wirepb.Attach {
	pack, digest := a.Log.Since(0)
	return &wirepb.Attach{
		Session: a.ID, Epoch: a.Epoch, ConnectionId: a.ConnectionID, StreamId: a.StreamID, Request: a.Request,
		Prefix: pack.Prefix(digest), Fingerprint: a.Began, Tries: a.Tries,
	}
}

// Feed brings a standby the tokens after a sequence, and returns that of the last one.
func (a *Attempt) Feed(sequence uint64) (last uint64) {
	m := a.feed(sequence)
	a.Link.Send(m)
	return sequence + uint64(len(m.GetLengths()))
}

func (a *Attempt) feed(sequence uint64) *wirepb.Feed {
	pack, _ := a.Log.Since(sequence)
	return &wirepb.Feed{
		Session: a.ID, Epoch: a.Epoch, FirstSequence: sequence + 1, Text: pack.Text, Lengths: pack.Lengths, Extras: pack.Extras,
	}
}

// Pivot makes a standby, which has the tokens up to a sequence, the owner of what follows the cut. The log has to be
// opened for it before.
func (a *Attempt) Pivot(sequence, credit uint64) {
	rest := a.feed(sequence)
	digest, cut := a.Log.Digest()
	a.Link.Send(&wirepb.Pivot{Rest: rest, Cut: cut, Digest: digest[:], Credit: credit})
}

// Grant lets the worker send more, if there is more that it may send.
func (a *Attempt) Grant() {
	if g := a.credit(); g != nil {
		a.Link.Grant(g)
	}
}

func (a *Attempt) credit() *wirepb.Credit_Grant {
	sequence, acknowledged, ok := a.log.Credit(a.Epoch)
	if !ok {
		return nil
	}
	return &wirepb.Credit_Grant{Session: a.ID, Epoch: a.Epoch, Sequence: sequence, Acknowledged: acknowledged}
}

// Client tells the streams of different clients apart.
func (a *Attempt) Client() uint64 { return a.Connection }

// observeEvery is after how many tokens the placement hears of the stream's rhythm.
const observeEvery = 16

// Token takes one token of the worker's, which came at a time, and reports whether it is the first since the last
// flush.
func (a *Attempt) Token(t wire.Chunk, at time.Time) (first bool) {
	a.log.Append(t, at)
	if t.Sequence%observeEvery == 0 {
		if interval := a.log.Interval(); interval > 0 {
			a.Latency.Observe(interval, at)
			a.Link.Interval(interval)
		}
	}
	return !a.dirty.Swap(true) // after the token is in the log: the flush that resets it hands that on
}

// Flush hands to the client what has come, and returns what the worker may send now, or nil.
func (a *Attempt) Flush() *wirepb.Credit_Grant {
	a.dirty.Store(false)
	a.leg.Push()
	return a.credit()
}

// Begun takes the worker's word that it begins, once.
func (a *Attempt) Begun(m *wirepb.Begin) {
	if m.GetEpoch() == a.Epoch {
		a.Log.Begun(a.Epoch, func() { a.Post(Begun{a, m}) })
	}
}

// Ended takes the worker's word that the generation is over.
func (a *Attempt) Ended(m *wirepb.End) { a.terminal(m.GetEpoch(), Ended{a, m}) }

// Failed takes the worker's word that the generation failed.
func (a *Attempt) Failed(m *wirepb.Fail) {
	a.terminal(m.GetEpoch(), Failed{a, false, wire.FromMessage(&wirepb.Error{
		Code: m.GetCode(), Message: m.GetMessage(), Status: m.GetStatus(), Document: m.GetDocument(),
	})})
}

// Refused takes the worker's word that it does not take the stream.
func (a *Attempt) Refused(m *wirepb.Refused) {
	a.terminal(m.GetEpoch(), Failed{a, true, &wire.Error{Code: wire.Code(m.GetCode()), Message: m.GetMessage()}})
}

// terminal passes on what ends the attempt, once.
func (a *Attempt) terminal(epoch uint64, event any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if epoch == a.Epoch && !a.over {
		a.over = true
		a.Post(event)
	}
}

// Prepared takes the worker's word how far its standby is.
func (a *Attempt) Prepared(m *wirepb.Prepared) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.GetEpoch() != a.Epoch {
		return
	}
	if a.prepared == nil {
		a.Post(Prepared{a})
	}
	a.prepared = m
}

// TakePrepared returns the newest word on how far the standby is.
func (a *Attempt) TakePrepared() (m *wirepb.Prepared) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, a.prepared = a.prepared, nil
	return m
}

// Progressing takes the worker's word how far its engine is.
func (a *Attempt) Progressing(m *wirepb.Progressing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.GetEpoch() != a.Epoch || a.over {
		return
	}
	if a.progress == nil {
		a.Post(Progressing{a})
	}
	a.progress = m
}

// TakeProgress returns the newest word on how far the engine is.
func (a *Attempt) TakeProgress() (m *wirepb.Progressing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, a.progress = a.progress, nil
	return m
}

// Captured takes the worker's answer to a request for the engine's state. A worker may answer in any order; the newest
// request counts.
func (a *Attempt) Captured(m *wirepb.Captured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.GetEpoch() != a.Epoch || a.captured != nil && a.captured.GetCapture() > m.GetCapture() {
		return
	}
	if a.captured == nil {
		a.Post(Captured{a})
	}
	a.captured = m
}

// TakeCaptured returns the newest answer.
func (a *Attempt) TakeCaptured() (m *wirepb.Captured) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, a.captured = a.captured, nil
	return m
}
