package native

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// withUnknown adds a field that nobody knows, of n bytes.
func withUnknown[M proto.Message](m M, n int) M {
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, n)))
	return m
}

// TestNewerClients say a little that this director does not know.
func TestNewerClients(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		_, frames := w.ask(w.greeted(0), withUnknown(&wirepb.Request{Prompt: "x"}, 100))
		w.served(frames)
	})
}

// TestStrangeHellos are refused, and the client is told so in the director's words.
func TestStrangeHellos(t *testing.T) {
	for name, b := range map[string][]byte{
		"an error":     wire.Append(nil, wire.Errorf(wire.CodeShutdown, "words of the client").Proto()),
		"a request":    wire.Append(nil, &wirepb.Generate{}),
		"much unknown": wire.Append(nil, withUnknown(&wirepb.ClientHello{Version: wire.Version}, 50_000)),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				conn := w.dial(0)
				w.say(conn, b)
				e := w.closed(conn)
				if e.ErrorCode != wire.QUICProtocol || !strings.HasPrefix(e.ErrorMessage, "protocol_error: ") || strings.Contains(e.ErrorMessage, "words") {
					t.Errorf("got %v", e)
				}
			})
		})
	}
}

// TestNamesAreShownSafely has a client call itself what would turn the rest of the line around, and more.
func TestNamesAreShownSafely(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn := w.dial(0)
		name := "\u202egnp.exe\u200b\x1b[2J\n" + strings.Repeat("x", 2000)
		frames := wire.NewReader(w.say(conn, wire.Append(nil, &wirepb.ClientHello{Version: wire.Version, Client: name})), wire.MaxControl)
		if _, err := wire.ReadMessage[*wirepb.Welcome](frames); err != nil {
			t.Fatal(err)
		}
		shown := w.server.Connections(0, 1)[0].Client
		if !strings.HasPrefix(shown, "\ufffdgnp.exe\ufffd [2J x") || len(shown) > 128 {
			t.Errorf("shown as %q", shown)
		}
	})
}

func TestPriorities(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		conn := w.greeted(0)
		_, frames := w.ask(conn, &wirepb.Request{Priority: 255})
		w.served(frames)
		for _, priority := range []uint32{256, 1<<32 - 1} {
			_, frames := w.ask(conn, &wirepb.Request{Priority: priority})
			w.refused(frames, wire.CodeInvalid, fmt.Sprintf("priority is %d; give 0 to 255", priority))
		}
	})
}
