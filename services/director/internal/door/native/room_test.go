package native

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestUnfinishedRequests: however many one address leaves open, on however many connections, another one's are served;
// and so are that connection's own once they have been given up.
func TestUnfinishedRequests(t *testing.T) {
	const most = 64
	inSmallWorld(t, plenty(shares.Requests, most), nil, func(w *world) {
		hogs := make([]*quicnet.Conn, 3*most/maxStreams)
		for i := range hogs {
			hogs[i] = w.greetedFrom("hog", 0)
			for range maxStreams {
				w.say(hogs[i], []byte{5})
			}
		}
		time.Sleep(time.Second)
		if half := w.server.shares.Status()["half_open_requests"]; half.Used != most*7/8 || half.Refused == 0 {
			t.Errorf("%+v", half)
		}
		honest := w.greeted(0)
		for range maxStreams {
			_, frames := w.ask(honest, &wirepb.Request{})
			w.served(frames)
		}
		time.Sleep(requestTimeout)
		_, frames := w.ask(hogs[0], &wirepb.Request{})
		w.served(frames)
		if half := w.server.shares.Status()["half_open_requests"]; half.Used != 0 {
			t.Errorf("%+v", half)
		}
	})
}

// TestUnfinishedRequestsOfAConnection: beyond a few its further ones wait, also those that are whole.
func TestUnfinishedRequestsOfAConnection(t *testing.T) {
	inWorldOf(t, plenty(shares.Requests, 100), 2*unfinishedMost, nil, func(w *world) {
		conn := w.greeted(0)
		var open []*quic.Stream
		for range unfinishedMost {
			open = append(open, w.say(conn, []byte{5}))
		}
		stream, frames := w.ask(conn, &wirepb.Request{})
		if err := stream.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := frames.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		_ = stream.SetReadDeadline(time.Time{})
		open[0].CancelWrite(wire.StreamCancel)
		w.served(frames)
		if half := w.server.shares.Status()["half_open_requests"]; half.Used != unfinishedMost-1 {
			t.Errorf("%+v", half)
		}
	})
}

// TestIdleConnectionsMakeRoom: those of who has most end, when there is little room; nobody else's do.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	const most = 64
	inSmallWorld(t, plenty(shares.Connections, most), nil, func(w *world) {
		honest := w.greeted(0)
		var hogs []*quicnet.Conn
		for range most * 3 / 4 {
			hogs = append(hogs, w.greetedFrom("hog", 0))
		}
		_, frames := w.ask(hogs[0], &wirepb.Request{})
		w.served(frames)
		time.Sleep(time.Minute)
		if n := w.server.Open(); n != 1+len(hogs) {
			t.Fatalf("%d are open while there is room", n)
		}
		for range most/8 - 1 {
			hogs = append(hogs, w.greetedFrom("hog", 0))
		}
		time.Sleep(2 * roomEvery)
		if e := w.closed(hogs[1]); e.ErrorCode != wire.QUICRefused || !strings.Contains(e.ErrorMessage, "no stream for a while") {
			t.Errorf("got %v", e)
		}
		for i, conn := range []*quicnet.Conn{honest, hogs[0]} {
			if conn.Context().Err() != nil {
				t.Errorf("connection %d ended: %v", i, conn.Context().Err())
			}
		}
	})
}

// TestNewcomersConnect: one address has all that it can get, and uses it.
func TestNewcomersConnect(t *testing.T) {
	const most = 16
	inSmallWorld(t, plenty(shares.Connections, most), nil, func(w *world) {
		for range most - most/8 {
			_, frames := w.ask(w.greetedFrom("hog", 0), &wirepb.Request{})
			w.served(frames)
		}
		if e := w.closed(w.dialFrom("hog", 0)); e.ErrorCode != wire.QUICRefused {
			t.Errorf("got %v", e)
		}
		_, frames := w.ask(w.greeted(0), &wirepb.Request{})
		w.served(frames)
	})
}

// TestMemoryHasAnEnd: prompts beyond it are refused, in words; what ends gives its memory back.
func TestMemoryHasAnEnd(t *testing.T) {
	const prompt = 100_000
	inSmallWorld(t, plenty(shares.Bytes, 2<<20), promptsOf(prompt), func(w *world) {
		request := &wirepb.Request{Prompt: strings.Repeat("x", prompt)}
		var served []*quic.Stream
		conns := []*quicnet.Conn{w.greetedFrom("hog", 0), w.greetedFrom("hog", 0)}
		var refused string
		for i := 0; refused == "" && i < 2*maxStreams; i++ {
			stream, frames := w.ask(conns[i/maxStreams], request)
			m, err := frames.Next()
			if err != nil {
				t.Fatal(err)
			}
			message, err := wire.Decode(m)
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := message.(*wirepb.Error); ok {
				refused = e.GetMessage()
			} else {
				served = append(served, stream)
			}
		}
		if len(served) < 4 || !strings.Contains(refused, "no room for more bytes: of 2097152 in all (DIRECTOR_MAX_BYTES)") {
			t.Fatalf("after %d: %q", len(served), refused)
		}
		_, frames := w.ask(w.greeted(0), &wirepb.Request{Prompt: "small"})
		w.served(frames)
		for _, stream := range served {
			stream.CancelRead(wire.StreamCancel)
		}
		time.Sleep(time.Second)
		if used := w.server.shares.Status()["bytes"].Used; used != 3*connectionBytes+streamBytes+2*int64(len("small"))+512 { // its log's
			t.Errorf("%d bytes are still taken", used)
		}
	})
}

// TestDatagramsAreNotKept: nobody needs them.
func TestDatagramsAreNotKept(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn := w.greeted(0)
		for range 300 {
			if err := conn.SendDatagram(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		server := w.server.all()[0]
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if _, err := server.conn.ReceiveDatagram(ctx); !errors.Is(err, ctx.Err()) || err == nil {
			t.Errorf("one is kept: %v", err)
		}
	})
}
