package native

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/director/internal/door"
	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/shares"
	streamlog "github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// connection is what a client has at this director: an id, and streams. It is carried by one QUIC connection, and when
// that is lost it waits for the client to come back over another one, as its streams do. Its methods may be called from any
// goroutine. It owns a goroutine for each stream.
type connection struct {
	server *Server
	number uint64 // of all connections that the director has had; rising
	id     string // conn-…, drawn when the client first greeted
	client string // the name of the client's program, as it says itself
	name   string // the one in its certificate; empty if it has none
	secret []byte // shows that a client that comes back is this one; empty if it may not
	since  time.Time
	holder *shares.Holder

	ctx      context.Context         // of the streams
	cancel   context.CancelCauseFunc // says why they end with the connection
	sessions sync.WaitGroup
	running  *sync.WaitGroup // the server's

	mu      sync.Mutex
	key     *keys.Key   // that the client has shown last
	carrier *carrier    // nil while the client is lost
	waiting *time.Timer // ends the wait for a client that is lost; nil while it is there
	counted bool        // while it waits it counts as one of its holder's
	over    bool        // nothing begins any more
	numbers numbers     // of the streams so far
	streams map[uint64]*session.Session
	begun   int       // streams that are served, or are about to be
	unused  time.Time // since when there is none; zero if there never was one
}

// session returns the session of a stream; nil if there is none.
func (k *connection) session(stream uint64) *session.Session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.streams[stream]
}

// idle returns for how long the connection has had no stream.
func (k *connection) idle() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.begun > 0:
		return 0
	case k.unused.IsZero():
		return time.Since(k.since)
	}
	return time.Since(k.unused)
}

// lingers returns for how long the connection has to stay although it has no stream; negative while it has some.
func (k *connection) lingers() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.begun > 0 {
		return -1
	}
	return max(0, lingerTime-time.Since(k.unused))
}

// shown returns the key that the client has shown last.
func (k *connection) shown() *keys.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.key
}

// take has a QUIC connection carry the connection from now on, over which a key was shown, and returns the one that did; false
// if it is over.
func (k *connection) take(c *carrier, key *keys.Key) (last *carrier, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return nil, false
	}
	last, k.carrier, k.key = k.carrier, c, key
	k.stopWaiting()
	return last, true
}

// lose says that a QUIC connection carries nothing any more, because of a cause. If the client may come back the
// connection waits for it, else its streams end.
func (k *connection) lose(c *carrier, cause error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.carrier != c {
		return // it goes on over another one
	}
	k.carrier = nil
	if len(k.secret) == 0 || !broken(cause) {
		k.cancel(cause)
		k.over = true
	} else if k.counted = k.holder.Take(shares.Connections, 1) == nil; k.counted {
		k.waiting = time.AfterFunc(k.server.cfg.ResumeWait, k.expire)
	}
	k.leave()
}

// expire ends the wait for a client that is lost.
func (k *connection) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.carrier == nil {
		k.stopWaiting()
		k.leave()
	}
}

// stopWaiting ends what lose began. k.mu is held.
func (k *connection) stopWaiting() {
	if k.waiting != nil {
		k.waiting.Stop()
		k.waiting = nil
	}
	if k.counted {
		k.holder.Give(shares.Connections, 1)
		k.counted = false
	}
}

// leave ends the connection if nobody is there, nothing runs, and nobody is waited for. k.mu is held.
func (k *connection) leave() {
	if k.carrier == nil && k.begun == 0 && k.waiting == nil {
		k.over = true
		k.server.connections.forget(k)
	}
}

// close ends the connection.
func (k *connection) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.carrier = nil
	k.stopWaiting()
	k.leave()
}

// begin serves a new stream, which the client asked for over a stream of its QUIC connection.
func (k *connection) begin(c *carrier, quic *quic.Stream, m *wirepb.Generate) (err error) {
	number := m.GetStream()
	if number == 0 {
		number = uint64(quic.StreamID()) / 4 // RFC 9000 §2.1: the two lowest bits are the stream's kind
	}
	if err := k.enter(number); err != nil {
		return err
	}
	grant, err := k.shown().Admit()
	if err != nil {
		k.ended(number)
		return err
	}
	holder := k.server.shares.Join(k.shown().Holder(c.holder.Name()))
	leave := func() {
		holder.Leave()
		grant.Close()
		k.ended(number)
	}
	if err := holder.Take(shares.Streams, 1); err != nil {
		leave()
		return err
	}
	memory, err := holder.Open(streamBytes + 2*(len(m.GetRequest().GetPrompt())+len(m.GetRequest().GetBody()))) // a worker's link has a copy
	if err != nil {
		holder.Give(shares.Streams, 1)
		leave()
		return err
	}
	s := k.server.sessions.Create(session.Identity{
		Connection: k.number, ConnectionID: k.id, StreamID: number,
		Address: c.address(), Holder: holder.Name(), Resumable: len(k.secret) > 0,
	}, m.GetRequest(), memory, k.open(c, quic, streamlog.Cursor{}))
	grant.Meter(s.Usage)
	k.mu.Lock()
	k.streams[number] = s
	k.mu.Unlock()
	k.running.Add(1)
	k.sessions.Go(func() {
		defer k.running.Done()
		defer leave()
		defer holder.Give(shares.Streams, 1)
		defer memory.Close()
		defer k.server.sessions.Retire(s)
		s.Run(k.ctx)
	})
	return nil
}

// enter counts a stream in, or returns why it may not be served. Each that may be has to end.
func (k *connection) enter(number uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.over || k.ctx.Err() != nil || k.server.draining.Load():
		return wire.Errorf(wire.CodeShutdown, "the director is shutting down, and takes no new streams")
	case !k.numbers.use(number):
		return wire.Errorf(wire.CodeConflict, "stream %d has begun before", number)
	}
	k.begun++
	return nil
}

func (k *connection) ended(number uint64) {
	k.mu.Lock()
	delete(k.streams, number)
	if k.begun--; k.begun == 0 {
		k.unused = time.Now()
	}
	carrier := k.carrier
	k.leave()
	k.mu.Unlock()
	if carrier != nil && k.server.draining.Load() {
		carrier.leave()
	}
}

// resume has a stream go on where the client stands, over a stream of its QUIC connection.
func (k *connection) resume(c *carrier, quic *quic.Stream, m *wirepb.Resume) error {
	over := wire.Errorf(wire.CodeResumeStream, "%s has no stream %d, or no more", k.id, m.GetStream())
	s := k.session(m.GetStream())
	if s == nil || !s.Who().Resumable {
		return over
	}
	stand := streamlog.Stand{Records: m.GetRecords(), Sequence: m.GetSequence(), Digest: m.GetDigest()}
	at, sequence, err := s.Stand(stand)
	if err != nil {
		return err
	}
	answer := wire.Append(nil, &wirepb.Resumed{Sequence: sequence})
	if err := quic.TryWriteAll(answer); err != nil {
		return err
	}
	if !s.Resume(k.open(c, quic, at)) {
		return over
	}
	return nil
}

// open returns what opens a leg over a stream of a QUIC connection, which counts as used for as long as the leg is
// there.
func (k *connection) open(c *carrier, s *quic.Stream, at streamlog.Cursor) session.Open {
	return func(log *streamlog.Log, tell func(any)) session.Leg {
		g := newLeg(s, log, at, k.server.clock, tell)
		g.release = c.watch.Begin()
		return g
	}
}

// snapshot returns the connection as it is now; false if it is over, or the handshake of a client that comes back is not.
func (k *connection) snapshot() (door.Connection, bool) {
	all := door.Connection{Number: k.number, ConnectionID: k.id, Protocol: "connswap", Client: k.client, Since: k.since}
	k.mu.Lock()
	carrier, over := k.carrier, k.over
	k.mu.Unlock()
	if over {
		return door.Connection{}, false
	}
	if carrier != nil {
		proof, err := quicnet.ReadProof(carrier.conn)
		if err != nil {
			return door.Connection{}, false
		}
		all.ODCID, all.Exporter, all.ExporterHash = proof.ODCID, proof.Exporter, proof.ExporterHash()
		all.Address = carrier.address()
	}
	sessions := k.server.sessions.Of(k.number)
	all.Streams = make([]session.Snapshot, len(sessions))
	for i, s := range sessions {
		all.Streams[i] = s.Snapshot()
	}
	return all, true
}

// supersede tells a client that it goes on elsewhere.
func (c *carrier) supersede() {
	_ = c.conn.CloseWithError(wire.QUICTaken, string(wire.CodeResumeTaken)+": this connection goes on over another one")
}
