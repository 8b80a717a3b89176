package stream

import "github.com/connswap/connswap/shared/wire"

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
	if !l.journal.more(&c.at) {
		return nil, c
	}
	b := c.at.block
	frames = b.frames[c.at.offset:]
	switch {
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
		if f.Type == wire.TypeToken {
			tokens++
		}
	}
	return size, tokens
}

// Taken takes note that the client's connection has taken everything before the cursor.
func (l *Log) Taken(c Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = c.sequence
	if l.closed && !l.journal.more(&c.at) {
		l.told(Notice{Kind: Delivered})
	}
}
