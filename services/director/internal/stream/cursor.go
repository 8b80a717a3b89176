package stream

import "github.com/connswap/connswap/shared/wire"

// Cursor is a reader's position in a log. The zero value is the beginning. A log has one reader at present: what that has read of the marks is
// forgotten.
type Cursor struct {
	sequence uint64 // last token read
	epoch    uint64 // of the next one
	marks    int    // read
	at       position
}

// Read appends what follows the cursor to b as frames for the client, until it has about limit bytes, and returns where it came to.
func (l *Log) Read(c Cursor, b []byte, limit int) ([]byte, Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(b) < limit {
		if i := c.marks - l.read; i < len(l.marks) && l.marks[i].after <= c.sequence {
			m := l.marks[i]
			b = append(b, m.frame...)
			c.marks++
			if m.epoch != 0 {
				c.epoch = m.epoch
			}
			continue
		}
		text, ok := l.journal.next(&c.at)
		if !ok {
			break
		}
		c.sequence++
		b = wire.AppendToken(b, wire.Token{Epoch: c.epoch, Sequence: c.sequence, Text: text})
	}
	return b, c
}

// Taken takes note that the client's connection has taken everything before the cursor.
func (l *Log) Taken(c Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = c.sequence
	if n := c.marks - l.read; n > 0 {
		l.marks, l.read = l.marks[n:], c.marks
		if l.closed && len(l.marks) == 0 {
			l.told(Notice{Kind: Delivered})
		}
	}
}
