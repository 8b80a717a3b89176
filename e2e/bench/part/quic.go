package part

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// The bare QUIC relay. Its sockets, windows and certificates are those of the project. The worker writes the tokens of
// a step at once to one stream of its link; the relay hands each to its session's own stream, all that it has read
// before it reads again.
//
// A request is a session's number (4 bytes) and its tokens (4). A token on the link is a session's number (4), its
// length (2) and its text; towards the client it has no number. Length 0 ends a session.

const quicALPN = "relay/1"

const (
	sessionSize = 4
	lengthSize  = 2
	requestSize = 8
	linkHeader  = sessionSize + lengthSize
)

func quicListen(s Setup, role identity.Role, conf *quic.Config) (*quicnet.Listener, error) {
	src, err := s.identity(role)
	if err != nil {
		return nil, err
	}
	return quicnet.Listen(quicnet.OS{}, s.Listen[0], identity.ServerTLS(src, []string{quicALPN}, nil), conf)
}

func quicDial(ctx context.Context, s Setup, self, peer identity.Role, conf *quic.Config) (*quicnet.Conn, error) {
	src, err := s.identity(self)
	if err != nil {
		return nil, err
	}
	return quicnet.Dial(ctx, quicnet.OS{}, s.Target, identity.ClientTLS(src, quicALPN, peer), conf)
}

// background runs f; the channel says how that ended.
func background(f func() error) running {
	failed := make(chan error, 1)
	go func() { failed <- f() }()
	return running{failed: failed}
}

func quicWorker(ctx context.Context, s Setup) (running, error) {
	l, err := quicListen(s, identity.Worker, quicnet.LinkConfig(0))
	if err != nil {
		return running{}, err
	}
	return background(func() error {
		conn, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		control, err := conn.AcceptStream(ctx)
		if err != nil {
			return err
		}
		tokens, err := conn.OpenUniStreamSync(ctx)
		if err != nil {
			return err
		}
		requested := make(chan quicSession, s.Load.Streams)
		go readRequests(control, requested)
		return generate(ctx, newSteps(ctx, s.Load.interval()), requested, tokens)
	}), nil
}

// quicSession is one that the worker serves.
type quicSession struct{ id, made, tokens uint32 }

func readRequests(control io.Reader, requested chan<- quicSession) {
	defer close(requested)
	var r [requestSize]byte
	for {
		if _, err := io.ReadFull(control, r[:]); err != nil {
			return
		}
		requested <- quicSession{id: binary.BigEndian.Uint32(r[:]), tokens: binary.BigEndian.Uint32(r[sessionSize:])}
	}
}

// generate makes a token of each session in each step, and writes those of a step together.
func generate(ctx context.Context, steps *steps, requested <-chan quicSession, out io.Writer) error {
	var sessions []quicSession
	var b []byte
	for {
		for len(requested) > 0 || len(sessions) == 0 {
			s, more := <-requested
			if !more {
				return errors.New("the relay is gone")
			}
			sessions = append(sessions, s)
		}
		due, err := steps.wait(ctx)
		if err != nil {
			return err
		}
		b = b[:0]
		kept := sessions[:0]
		for _, s := range sessions {
			s.made++
			b = binary.BigEndian.AppendUint32(b, s.id)
			b = binary.BigEndian.AppendUint16(b, textSize)
			b = appendText(b, due, uint64(s.made))
			if s.made < s.tokens {
				kept = append(kept, s)
				continue
			}
			b = binary.BigEndian.AppendUint32(b, s.id)
			b = binary.BigEndian.AppendUint16(b, 0)
		}
		sessions = kept
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
}

// quicHub is the relay between.
type quicHub struct {
	mu      sync.Mutex
	control io.Writer
	next    uint32
	legs    map[uint32]*quicLeg
}

// quicLeg is what is for one session's client. The reader of the link owns it.
type quicLeg struct {
	stream *quic.Stream
	out    []byte
	over   bool
}

func quicRelay(ctx context.Context, s Setup) (running, error) {
	link, err := quicDial(ctx, s, identity.Director, identity.Worker, quicnet.LinkConfig(100*time.Millisecond))
	if err != nil {
		return running{}, err
	}
	h := &quicHub{legs: map[uint32]*quicLeg{}}
	if h.control, err = link.OpenStreamSync(ctx); err != nil {
		return running{}, err
	}
	l, err := quicListen(s, identity.Director, quicnet.ServeClientsConfig(s.Load.Streams))
	if err != nil {
		return running{}, err
	}
	failed := make(chan error, 2)
	go func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				failed <- err
				return
			}
			go h.serve(ctx, conn)
		}
	}()
	go func() {
		tokens, err := link.AcceptUniStream(ctx)
		if err == nil {
			err = h.pass(tokens)
		}
		failed <- fmt.Errorf("the link: %w", err)
	}()
	return running{failed: failed}, nil
}

// serve takes the requests of one client.
func (h *quicHub) serve(ctx context.Context, conn *quic.Conn) {
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		go func() {
			var r [requestSize]byte
			if _, err := io.ReadFull(stream, r[:]); err == nil {
				_ = h.request(stream, r) // a link that is gone ends the relay
			}
		}()
	}
}

func (h *quicHub) request(stream *quic.Stream, r [requestSize]byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.legs[h.next] = &quicLeg{stream: stream}
	binary.BigEndian.PutUint32(r[:], h.next)
	_, err := h.control.Write(r[:])
	return err
}

// pass reads the link to its end.
func (h *quicHub) pass(link io.Reader) error {
	const buffer = 64 << 10
	in := bufio.NewReaderSize(link, buffer)
	var dirty []*quicLeg
	for {
		header, err := in.Peek(linkHeader)
		if err != nil {
			return err
		}
		id, length := binary.BigEndian.Uint32(header), int(binary.BigEndian.Uint16(header[sessionSize:]))
		frame, err := in.Peek(linkHeader + length)
		if err != nil {
			return err
		}
		h.mu.Lock()
		leg := h.legs[id]
		if length == 0 {
			delete(h.legs, id)
		}
		h.mu.Unlock()
		if len(leg.out) == 0 {
			dirty = append(dirty, leg)
		}
		leg.out = append(leg.out, frame[sessionSize:]...)
		leg.over = length == 0
		if _, err := in.Discard(len(frame)); err != nil {
			return err
		}
		if in.Buffered() < linkHeader+textSize {
			for _, leg := range dirty {
				if err := leg.flush(); err != nil {
					return err
				}
			}
			dirty = dirty[:0]
		}
	}
}

// flush waits where the client's window is full: who is behind a slow one waits too.
func (l *quicLeg) flush() error {
	err := l.stream.TryWriteAll(l.out)
	if errors.Is(err, quic.ErrWouldBlock) {
		_, err = l.stream.Write(l.out)
	}
	l.out = l.out[:0]
	if err == nil && l.over {
		return l.stream.Close()
	}
	return err
}

func quicClient(ctx context.Context, s Setup) (running, error) {
	return startClient(ctx, s.Load, func(ctx context.Context) (conn, error) {
		c, err := quicDial(ctx, s, identity.Client, identity.Director, quicnet.ClientConfig())
		return quicConn{c}, err
	})
}

type quicConn struct{ *quicnet.Conn }

func (c quicConn) open(ctx context.Context) (stream, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	var r [requestSize]byte
	binary.BigEndian.PutUint32(r[sessionSize:], streamTokens)
	if _, err := s.Write(r[:]); err != nil {
		return nil, err
	}
	return quicStream{s}, s.Close()
}

type quicStream struct{ *quic.Stream }

func (s quicStream) read(r *reader) error {
	in := bufio.NewReader(s.Stream)
	for {
		header, err := in.Peek(lengthSize)
		if err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint16(header))
		if length == 0 {
			_, err := io.Copy(io.Discard, in) // to its end: QUIC forgets the stream
			return err
		}
		frame, err := in.Peek(lengthSize + length)
		if err != nil {
			return err
		}
		if err := take(r, frame[lengthSize:]); err != nil {
			return err
		}
		if _, err := in.Discard(len(frame)); err != nil {
			return err
		}
	}
}
