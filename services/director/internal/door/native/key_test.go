package native

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// keyed is a director's keys, and the file that has them.
type keyed struct {
	*keys.Keys
	t    *testing.T
	path string
}

// write has the file name some keys; fields are those of each.
func (k *keyed) write(fields string, names ...string) {
	k.t.Helper()
	content := "keys: []"
	for i, name := range names {
		if i == 0 {
			content = "keys:\n"
		}
		content += fmt.Sprintf("- {name: %s, sha256: %x, %s}\n", name, sha256.Sum256([]byte(name+"-key")), fields)
	}
	if err := os.WriteFile(k.path, []byte(content), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// inKeyedWorld has a director that waits for clients, and asks them for a key.
func inKeyedWorld(t *testing.T, fields string, names []string, test func(w *world, k *keyed)) {
	t.Helper()
	k := &keyed{t: t, path: filepath.Join(t.TempDir(), "keys.yaml")}
	k.write(fields, names...)
	var file *yamlfile.File
	var err error
	if k.Keys, file, err = keys.Read(k.path, zap.NewNop(), nil); err != nil {
		t.Fatal(err)
	}
	inWorld(t, func(cfg *Config) { cfg.ResumeWait, cfg.ClientIdle, cfg.Keys = waits, 6*time.Second, k.Keys }, func(w *world) {
		ctx, stop := context.WithCancel(w.Context())
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			file.Watch(ctx)
		}()
		test(w, k)
		stop()
		<-watched
	})
}

// shows connects with a key, perhaps as a client that was here before.
func (w *world) shows(key string, who *wirepb.Return) (guest, error) {
	w.Helper()
	conn := w.dial(0)
	control := w.say(conn, wire.Append(nil, &wirepb.ClientHello{Version: wire.Version, Resumable: true, Return: who, Key: key}))
	welcome, err := wire.ReadMessage[*wirepb.Welcome](wire.NewReader(control, wire.MaxControl))
	return guest{conn, welcome, control}, err
}

func (w *world) letIn(key string) guest {
	w.Helper()
	g, err := w.shows(key, nil)
	if err != nil {
		w.Fatal(err)
	}
	return g
}

func (w *world) turnedAway(key string, who *wirepb.Return, words string) {
	w.Helper()
	_, err := w.shows(key, who)
	if wire.AsError(err, wire.CodeInternal).Code != wire.CodeUnauthorized || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "-key") {
		w.Errorf("with %q: got %v, want %q", key, err, words)
	}
}

// TestKeys: who shows none, or one that is not known, is told what to change; who shows one that has been taken out since gets no
// new stream.
func TestKeys(t *testing.T) {
	inKeyedWorld(t, "priority: 3", []string{"a", "b"}, func(w *world, k *keyed) {
		w.turnedAway("", nil, "clients that have a key, and none was shown; give one in a file (CONNECTION_SWAP_CLIENT_KEY_FILE), or in connswap.Options.Key")
		w.turnedAway("c-key", nil, "the one that was shown is not known here")
		a := w.letIn("a-key")
		b := w.letIn("b-key")
		w.begin(a, 1)
		k.write("priority: 3", "b")
		time.Sleep(2 * time.Second)
		w.refused(wire.NewReader(w.sends(a, &wirepb.Generate{Stream: 2}), wire.MaxControl), wire.CodeUnauthorized, "the key a is not good any more")
		w.turnedAway("a-key", nil, "is not known here")
		w.turnedAway("a-key", a.who(), "is not known here")
		w.begin(b, 1)
		if n := w.server.sessions.Running(); n != 2 {
			t.Errorf("%d streams run; the one that had begun goes on", n)
		}
	})
}

// TestReturnWithAKey: only who shows the key of a connection comes back to it.
func TestReturnWithAKey(t *testing.T) {
	inKeyedWorld(t, "priority: 3", []string{"a", "b"}, func(w *world, _ *keyed) {
		a := w.letIn("a-key")
		w.begin(a, 1)
		a.vanish()
		w.turnedAway("", a.who(), "none was shown")
		w.turnedAway("b-key", a.who(), "is that of a client with another key")
		again, err := w.shows("a-key", a.who())
		if err != nil {
			t.Fatal(err)
		}
		frames := wire.NewReader(w.sends(again, stands(1)), wire.MaxControl)
		if _, err := wire.ReadMessage[*wirepb.Resumed](frames); err != nil {
			t.Error(err)
		}
	})
}

// TestLimitsOfAKey are those of all its connections together. The priority is no higher than the key's, streams are the key's where
// they are divided, and each request is counted once.
func TestLimitsOfAKey(t *testing.T) {
	inKeyedWorld(t, "max_streams: 2, priority: 3, models: [m]", []string{"a", "b"}, func(w *world, k *keyed) {
		ask := func(g guest, number uint64, r *wirepb.Request) *wire.Reader {
			r.Model = "m"
			return wire.NewReader(w.sends(g, &wirepb.Generate{Stream: number, Request: r}), wire.MaxControl)
		}
		first, second, other := w.letIn("a-key"), w.letIn("a-key"), w.letIn("b-key")
		w.served(ask(first, 1, &wirepb.Request{Priority: 200}))
		w.served(ask(second, 1, &wirepb.Request{Priority: 2}))
		for _, g := range []guest{first, second} {
			w.refused(ask(g, 2, &wirepb.Request{}), wire.CodeLimit, "the key a may have 2 streams at once (max_streams)")
		}
		w.served(ask(other, 1, &wirepb.Request{}))
		w.refused(wire.NewReader(w.sends(other, &wirepb.Generate{Stream: 2, Request: &wirepb.Request{Model: "n"}}), wire.MaxControl),
			wire.CodeForbidden, `the key b may not use the model "n"; it may use m`)

		var priorities []uint32
		for _, c := range w.server.Connections(0, 10) {
			for _, s := range c.Streams {
				priorities = append(priorities, s.Priority)
			}
		}
		if fmt.Sprint(priorities) != "[3 2 3]" {
			t.Errorf("priorities are %v", priorities)
		}
		status := w.server.shares.Status()["streams"]
		if fmt.Sprint(status.Most) != "[{key a 2} {key b 1}]" {
			t.Errorf("streams are of %v", status.Most)
		}
		_ = first.CloseWithError(wire.QUICOk, "") // its streams end
		time.Sleep(time.Second)
		w.served(ask(second, 3, &wirepb.Request{}))
		if used := k.Usage(); fmt.Sprint(used) != "[{a 3 0 0} {b 1 0 0}]" {
			t.Errorf("used were %v", used)
		}
	})
}
