package stream

import (
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
)

// Cursor is a reader's position in a log. The zero value is the beginning.
type Cursor struct {
	at       position
	sequence uint64 // of the last token before it
}

// Read returns what follows the cursor as frames for the client, and the cursor behind them; nothing at the end. They
// are as many as lie together, of limit bytes at most, but one at least: whoever wants all reads until there is
// nothing. They must not be changed, and stay as they are.
func (l *Log) Read(c Cursor, limit int) (frames []byte, next Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.release != nil && len(l.release.held) > 0
	if held && c.at == l.release.at.position || !l.journal.more(&c.at) {
		return nil, c
	}
	b := c.at.block
	frames = b.frames[c.at.offset:]
	if held && l.release.at.block == b {
		frames = b.frames[c.at.offset:l.release.at.offset]
	}
	switch {
	case held:
		size, tokens := cut(frames, limit)
		frames = frames[:size]
		c.sequence += tokens
	case len(frames) > limit:
		size, tokens := cut(frames, limit)
		frames = frames[:size]
		c.sequence += tokens
	case b.next != nil:
		c.sequence = b.tokens
	default:
		c.sequence = l.journal.tokens
	}
	c.at.offset += len(frames)
	return frames[:len(frames):len(frames)], c
}

// cut returns the size of the first frames that fit the limit, or of the first one, and how many of them are tokens.
func cut(frames []byte, limit int) (size int, tokens uint64) {
	for size < len(frames) {
		f, n := wire.ParseFrame(frames[size:])
		if size > 0 && size+n > limit {
			break
		}
		size += n
		if f.IsChunk() {
			tokens++
		}
	}
	return size, tokens
}

// Stand is how far a client says that it has read: records, the sequence of the last token among them, and the digest
// over the tokens so far.
type Stand struct {
	Records, Sequence uint64
	Digest            []byte
}

// Resume returns the cursor at which a client stands that lost its leg, and takes that for an acknowledgement. The error is one of CodeResumeAhead,
// CodeResumeBehind and CodeResumeDigest: the client does not have what this log had.
func (l *Log) Resume(s Stand) (Cursor, error) {
	l.mu.Lock()
	records, acked := l.journal.records, l.acked
	if l.release != nil {
		records = l.release.at.records
	}
	var c Cursor
	var before [][]byte
	if s.Records <= records {
		c.at, c.sequence = l.journal.at(s.Records)
		before = l.journal.before(c.at)
	}
	l.mu.Unlock()
	switch {
	case s.Records > records:
		return Cursor{}, wire.Errorf(wire.CodeResumeAhead, "the client has %d records of the stream, there are %d", s.Records, records)
	case s.Records < acked:
		return Cursor{}, wire.Errorf(wire.CodeResumeBehind, "the client wants what follows record %d, and has acknowledged %d", s.Records, acked)
	case c.sequence != s.Sequence:
		return Cursor{}, wire.Errorf(wire.CodeResumeDigest, "after %d records there are %d tokens, the client has %d", s.Records, c.sequence, s.Sequence)
	}
	if digest := digestOf(before); !digest.Equal(s.Digest) {
		return Cursor{}, wire.Errorf(wire.CodeResumeDigest, "the digest over %d tokens is %s, the client's is %x", c.sequence, digest, s.Digest)
	}
	l.Acknowledge(s.Records)
	return c, nil
}

// digestOf returns the digest over the tokens among runs of frames.
func digestOf(runs [][]byte) session.Digest {
	var digest session.Rolling
	for _, frames := range runs {
		for len(frames) > 0 {
			f, size := wire.ParseFrame(frames)
			frames = frames[size:]
			if f.IsChunk() {
				chunk, _ := wire.ParseChunk(f) // this package wrote it
				digest.Add(chunk)
			}
		}
	}
	return digest.Digest()
}

// Acknowledge takes note that the client has read so many records, and will not ask for them again. More than there are
// is ignored.
func (l *Log) Acknowledge(records uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if records > l.journal.records || records <= l.acked {
		return
	}
	l.acked = records
	_, l.read = l.journal.at(records)
	if l.closed && records == l.journal.records {
		l.told(Notice{Kind: Acknowledged})
	}
}

// Taken takes note that the client's connection has taken everything before the cursor, and reports whether that is all
// there will be.
func (l *Log) Taken(c Cursor) (all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = c.sequence
	return l.closed && !l.journal.more(&c.at)
}
