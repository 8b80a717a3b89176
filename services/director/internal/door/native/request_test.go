package native

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/shared/config"
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

// TestOfItsModel has what a request gets that its model has something said of, under any of its names.
func TestOfItsModel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "director.yaml")
	content := "models:\n  m: {aliases: [x], continuity: exact, max_tokens: 50}\nlimits: {max_tokens: 100}\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.DefaultDirector()
	cfg.ConfigFile = path
	s, err := settings.Read(cfg, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &carrier{
		server:     &Server{cfg: Config{Settings: s, Model: func(name string) (string, error) { return name, nil }}},
		connection: &connection{},
	}
	for _, one := range []struct {
		asked, want *wirepb.Request
		wrong       string
	}{
		{&wirepb.Request{Model: "x"}, &wirepb.Request{Model: "m", Continuity: 3, MaxTokens: 50}, ""},
		{&wirepb.Request{Model: "m", Continuity: 1, MaxTokens: 7}, &wirepb.Request{Model: "m", Continuity: 1, MaxTokens: 7}, ""},
		{&wirepb.Request{Model: "o", MaxTokens: 100}, &wirepb.Request{Model: "o", MaxTokens: 100}, ""},
		{&wirepb.Request{Model: "o"}, &wirepb.Request{Model: "o", MaxTokens: 100}, ""},
		{&wirepb.Request{Model: "x", MaxTokens: 51}, nil, `limit_exceeded: max_tokens is 51, this director allows 50 for the model "m"`},
		{&wirepb.Request{Model: "o", MaxTokens: 101}, nil, "limit_exceeded: max_tokens is 101, this director allows 100"},
	} {
		g := &wirepb.Generate{Request: one.asked}
		err := c.check(g, s.Now())
		switch {
		case one.wrong != "":
			if err == nil || err.Error() != one.wrong {
				t.Errorf("got %v, want %s", err, one.wrong)
			}
		case err != nil || !proto.Equal(g.GetRequest(), one.want):
			t.Errorf("got %v, %v, want %v", g.GetRequest(), err, one.want)
		}
	}
}
