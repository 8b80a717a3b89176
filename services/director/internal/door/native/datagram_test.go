package native

import (
	"testing"
	"time"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Datagrams say that a client is there, and mean nothing else, however many come.
func TestDatagramsAreIgnored(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn := w.greeted(0)
		if !conn.ConnectionState().SupportsDatagrams.Remote {
			t.Fatal("the director takes no datagrams")
		}
		_, before := w.ask(conn, &wirepb.Request{Prompt: "hello"})
		for range 1000 {
			if err := conn.SendDatagram(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		w.served(before)
		_, after := w.ask(conn, &wirepb.Request{Prompt: "hello"})
		w.served(after)
	})
}
