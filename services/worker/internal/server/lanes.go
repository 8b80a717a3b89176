package server

// lanes spread the sessions of a link over its token streams. All sessions of one client's connection go by the same
// stream: what they make in one step reaches the director in one read, and leaves it in one packet to that client. It is
// asked when a session comes and goes, never for a token. The link's mu guards it.
type lanes struct {
	streams []*queue
	load    []int            // sessions on each stream
	of      map[string]*lane // by connection id, as long as it has sessions here
}

// lane is where one connection's sessions go.
type lane struct {
	stream   int
	sessions int
}

func newLanes(streams []*queue) *lanes {
	return &lanes{streams: streams, load: make([]int, len(streams)), of: make(map[string]*lane)}
}

// take returns the token stream for one session more of a connection: its own one, or the one with the fewest sessions.
func (l *lanes) take(connection string) *queue {
	n := l.of[connection]
	if n == nil {
		n = &lane{stream: l.emptiest()}
		l.of[connection] = n
	}
	n.sessions++
	l.load[n.stream]++
	return l.streams[n.stream]
}

// release gives up the place of one session of a connection.
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
