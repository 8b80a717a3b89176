package link

import (
	"context"

	"github.com/connswap/connswap/services/worker/internal/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// outlet puts what one session has into the queues of a link, under the number that the director has for it.
type outlet struct {
	link    *link
	session uint64
	epoch   uint64
	lane    *lane // of a token stream, that of its connection
}

var _ session.Outlet = (*outlet)(nil)

// Room waits until less than maxQueued bytes are queued.
func (o *outlet) Room(ctx context.Context) error { return o.lane.queue.room(ctx) }

// PutChunk implements session.Outlet.
func (o *outlet) PutChunk(c wire.Chunk) {
	c.Session, c.Epoch = o.session, o.epoch
	o.lane.PutChunk(c)
}

// Flush implements session.Outlet.
func (o *outlet) Flush() { o.lane.queue.Flush() }

// Tell implements session.Outlet. What is about the standing of a session goes by the control stream.
func (o *outlet) Tell(n session.Note) {
	switch n := n.(type) {
	case session.Begun:
		o.lane.Send(o.begin(n))
	case session.Recovering:
		o.lane.Send(&wirepb.Progressing{Session: o.session, Epoch: o.epoch, At: n.At, Of: n.Of})
	case session.Ended:
		o.lane.Send(o.end(n))
	case session.Failed:
		e := n.Err.Proto()
		o.lane.Send(&wirepb.Fail{
			Session: o.session, Epoch: o.epoch, Code: e.GetCode(), Message: e.GetMessage(), Status: e.GetStatus(), Document: e.GetDocument(),
		})
	case session.Prepared:
		o.link.control.Send(&wirepb.Prepared{Session: o.session, Epoch: o.epoch, Sequence: n.Sequence})
	case session.Refused:
		o.link.refuse(o.session, o.epoch, n.Err)
	}
}

// begin returns how the director is told where the session begins.
func (o *outlet) begin(n session.Begun) *wirepb.Begin {
	begin := &wirepb.Begin{Session: o.session, Epoch: o.epoch, NextSequence: n.Next, Digest: n.Digest[:], PromptTokens: n.PromptTokens}
	if p := n.Pledge; p != nil {
		begin.Pledge = &wirepb.Begin_Pledge{Continuity: uint32(p.Continuity), Portable: p.Portable, Resumed: uint32(p.Resumed)}
	}
	return begin
}

// end returns how the director is told of a Finish.
func (o *outlet) end(n session.Ended) *wirepb.End {
	count, f := func(n int) uint64 { return uint64(max(0, n)) }, n.Finish
	end := &wirepb.End{
		Session: o.session, Epoch: o.epoch, FinishReason: wire.Text(f.Reason), Tokens: n.Chunks, Digest: n.Digest[:],
		Usage: &wirepb.Usage{
			PromptTokens: count(f.Usage.Prompt), CompletionTokens: count(f.Usage.Completion),
			CachedTokens: count(f.Usage.Cached), ReasoningTokens: count(f.Usage.Reasoning),
		},
	}
	for _, reason := range f.Reasons {
		end.FinishReasons = append(end.FinishReasons, wire.Text(reason))
	}
	return end
}
