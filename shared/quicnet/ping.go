package quicnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/time/rate"

	"github.com/connswap/connswap/shared/retry"
)

// A ping asks whether a listener can be reached, for a hundredth of the bytes with which a handshake asks. It is a UDP datagram
// that is no QUIC packet: one byte of those that nothing else on such ports begins with (RFC 9443), and a nonce. The answer is
// the same with the other byte. So it is no longer than the question, and nothing is gained by asking in somebody else's name;
// nor is it a question, and no two listeners can be made to answer each other without end.
//
// An answer proves no more than that somebody on the path has seen the question. Who it was the handshake shows.
const (
	pingQuestion = 0x04
	pingAnswer   = 0x05
	pingSize     = 1 + 16

	// maxAnswers is how many pings a listener answers in a second, answerBurst how many at once. Who gets no answer dials.
	maxAnswers  = 5000
	answerBurst = 500
)

// AnswerPings answers pings until ctx ends, or returns an error when the listener is closed.
func (l *Listener) AnswerPings(ctx context.Context) error {
	limit := rate.NewLimiter(maxAnswers, answerBurst)
	var p [pingSize + 1]byte // has room to see that a datagram is too long
	for {
		n, from, err := l.transport.ReadNonQUICPacket(ctx, p[:])
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case n != pingSize || p[0] != pingQuestion || !limit.Allow():
			continue
		}
		p[0] = pingAnswer
		_, _ = l.transport.WriteTo(p[:n], from) // it may get lost on its way as well
	}
}

// Ping asks addr from a fresh socket, again after each interval, and returns nil once it is answered. Else it goes on until ctx
// ends: not every listener answers, and no answer means nothing.
func Ping(ctx context.Context, nw Network, addr string, interval time.Duration) error {
	socket, remote, err := nw.DialPacket(ctx, addr)
	for ; err != nil; socket, remote, err = nw.DialPacket(ctx, addr) { // there is no way to addr now
		if !retry.Sleep(ctx, interval) {
			return err
		}
	}
	defer func() { _ = socket.Close() }()                         // may be the second time
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })() // ends the wait for an answer
	question := make([]byte, pingSize)
	_, _ = rand.Read(question) // never fails
	question[0] = pingQuestion
	for ctx.Err() == nil {
		due := time.Now().Add(interval)
		_, err := socket.WriteTo(question, remote)
		if err == nil {
			err = awaitAnswer(socket, question, due)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded): // nobody listens there now, for example
			retry.Sleep(ctx, time.Until(due))
		}
	}
	return ctx.Err()
}

// awaitAnswer returns nil once the answer to question has come. What else comes is nothing.
func awaitAnswer(socket net.PacketConn, question []byte, until time.Time) error {
	if err := socket.SetReadDeadline(until); err != nil {
		return err
	}
	var p [pingSize + 1]byte
	for {
		n, _, err := socket.ReadFrom(p[:])
		if err != nil {
			return err
		}
		if n == pingSize && p[0] == pingAnswer && bytes.Equal(p[1:n], question[1:]) {
			return nil
		}
	}
}
