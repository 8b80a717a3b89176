package link

import (
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Sink takes what a worker sends for a stream. The link's readers call it; it never blocks. What belongs to
// another epoch than the stream's own is dropped there: that is the fence.
type Sink interface {
	// Token takes one token. Its text is valid during the call.
	Token(t wire.Token)
	// Flush hands what Token took to the client, and returns what the worker behind l may send now, or nil.
	Flush(l *Link) *wirepb.Credit_Grant
	// Connection tells streams of the same client apart, so that they are flushed together.
	Connection() uint64

	Begun(m *wirepb.Begin)
	Ended(m *wirepb.End)
	Failed(m *wirepb.Fail)
	Refused(m *wirepb.Refused)
	Prepared(m *wirepb.Prepared)
	Captured(m *wirepb.Captured)
	Held(m *wirepb.Held)
}
