package link

import "github.com/connswap/connswap/shared/wire"

// lanes spread the sessions of a link over its token streams. All sessions of one client's connection share a lane of one
// stream: what they make in one step leaves side by side, reaches the director in one read, and leaves it in one packet to
// that client. It is asked when a session comes and goes, never for a token. The link's mu guards it.
type lanes struct {
	streams []*queue
	load    []int            // sessions on each stream
	of      map[string]*lane // by connection id, as long as it has sessions here
}

// lane is where one connection's sessions put what they have for the director. Its methods are safe for concurrent use.
type lane struct {
	queue *queue
	out   *wire.Lane // of queue

	// Guarded by the link's mu.
	stream   int // number of queue
	sessions int
}

func newLanes(streams []*queue) *lanes {
	return &lanes{streams: streams, load: make([]int, len(streams)), of: make(map[string]*lane)}
}

// take returns the lane for one session more of a connection: its own one, or a new one on the stream with the fewest
// sessions.
func (l *lanes) take(connection string) *lane {
	n := l.of[connection]
	if n == nil {
		stream := l.emptiest()
		q := l.streams[stream]
		n = &lane{queue: q, out: q.Lane(), stream: stream}
		l.of[connection] = n
	}
	n.sessions++
	l.load[n.stream]++
	return n
}

// release gives up the place of one session of a connection. What a lane still has goes out without it.
func (l *lanes) release(connection string) {
	n := l.of[connection]
	n.sessions--
	l.load[n.stream]--
	if n.sessions == 0 {
		delete(l.of, connection)
	}
}

// emptiest returns the stream with the fewest sessions; there are at most quicnet.MaxTokenStreams.
func (l *lanes) emptiest() int {
	least := 0
	for i, sessions := range l.load {
		if sessions < l.load[least] {
			least = i
		}
	}
	return least
}

// PutChunk adds a token.
func (n *lane) PutChunk(token wire.Chunk) { n.queue.queued.Add(int64(n.out.PutChunk(token))) }

// Send adds one message.
func (n *lane) Send(m wire.Message) {
	n.queue.queued.Add(int64(n.out.Put(func(b []byte) []byte { return wire.Append(b, m) })))
}
