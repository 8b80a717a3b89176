package link

import (
	"time"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Sink takes what a worker sends for a stream. The link's readers call it; it never blocks. What belongs to
// another epoch than the stream's own is dropped there: that is the fence.
type Sink interface {
	// Token takes one token, which came at a time, and reports whether a Flush has to follow: it is the first since the
	// last one. Its text is valid during the call.
	Token(t wire.Chunk, at time.Time) (first bool)
	// Flush hands what Token took to the client, and returns what the worker may send now, or nil.
	Flush() *wirepb.Credit_Grant
	// Client tells streams of different clients apart: those of one are flushed together. It does not change.
	Client() uint64

	Progressing(m *wirepb.Progressing)
	Begun(m *wirepb.Begin)
	Ended(m *wirepb.End)
	Failed(m *wirepb.Fail)
	Refused(m *wirepb.Refused)
	Prepared(m *wirepb.Prepared)
	Captured(m *wirepb.Captured)
}

// Holder is told whether a worker keeps the checkpoint that it was asked to keep. It never blocks.
type Holder interface {
	Held(m *wirepb.Held)
}
