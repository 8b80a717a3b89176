package session

import (
	"context"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
)

// Outlet is what carries a session to its director. It says by itself whose the chunks and notes are.
type Outlet interface {
	// Room waits until there is room for a chunk.
	Room(ctx context.Context) error
	// PutChunk takes the next chunk, whose memory is valid until it returns. It never blocks. The chunk leaves with what
	// follows, after Flush at the latest.
	PutChunk(c wire.Chunk)
	// Flush lets go what PutChunk has taken. It never blocks.
	Flush()
	// Tell takes anything else, in its order among the chunks. It never blocks.
	Tell(n Note)
}

// Note is what a director is told of a session: one of Begun, Recovering, Prepared, Ended, Failed and Refused.
type Note interface{ note() }

type (
	// Begun says what the first chunk will be.
	Begun struct {
		Next   uint64         // its sequence
		Digest session.Digest // over all before

		PromptTokens uint64         // 0 if the engine does not say
		Pledge       *engine.Pledge // nil for what is promised of the model
	}
	// Recovering says how far an engine is on its way to where the stream is.
	Recovering struct{ At, Of uint64 }
	// Prepared says up to which chunk a standby has the stream.
	Prepared struct{ Sequence uint64 }
	// Ended says that the text is complete.
	Ended struct {
		Finish engine.Finish
		Chunks uint64         // sequence of the last one
		Digest session.Digest // over all
	}
	// Failed says that the session cannot go on. It is the last note, as are Ended and Refused.
	Failed struct{ Err *wire.Error }
	// Refused says that the session never began.
	Refused struct{ Err *wire.Error }
)

func (Begun) note()      {}
func (Recovering) note() {}
func (Prepared) note()   {}
func (Ended) note()      {}
func (Failed) note()     {}
func (Refused) note()    {}
