package native

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// waits is for how long the tests' director waits for a client that is lost.
const waits = 30 * time.Second

// inPatientWorld has a director that waits for clients.
func inPatientWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	inWorld(t, func(cfg *Config) { cfg.ResumeWait, cfg.ClientIdle = waits, 6*time.Second }, test)
}

// guest is a client that may come back.
type guest struct {
	*quicnet.Conn
	welcome *wirepb.Welcome
	control *quic.Stream
}

// greets says hello, and returns what the director says.
func (w *world) greets(conn *quicnet.Conn, who *wirepb.Return) (guest, error) {
	w.Helper()
	control := w.say(conn, wire.Append(nil, &wirepb.ClientHello{Version: wire.Version, Resumable: true, Return: who}))
	welcome, err := wire.ReadMessage[*wirepb.Welcome](wire.NewReader(control, wire.MaxControl))
	return guest{conn, welcome, control}, err
}

// comes connects as a client that may come back, perhaps as one that was here before.
func (w *world) comes(who *wirepb.Return) guest {
	w.Helper()
	g, err := w.greets(w.dial(0), who)
	if err != nil {
		w.Fatal(err)
	}
	return g
}

// who is what the guest shows when it comes back.
func (g guest) who() *wirepb.Return {
	return &wirepb.Return{ConnectionId: g.welcome.GetConnectionId(), Secret: g.welcome.GetSecret()}
}

// vanish has the client go as one does that is lost.
func (g guest) vanish() { _ = g.CloseWithError(wire.QUICLost, "") }

// begin asks for a stream, which waits for a worker.
func (w *world) begin(g guest, number uint64) *wire.Reader {
	w.Helper()
	frames := wire.NewReader(w.sends(g, &wirepb.Generate{Stream: number}), wire.MaxControl)
	w.served(frames)
	return frames
}

// sends opens a stream, and sends one message on it.
func (w *world) sends(g guest, m wire.Message) *quic.Stream {
	w.Helper()
	stream := w.say(g.Conn, wire.Append(nil, m))
	_ = stream.Close() // the director may have said already that it wants no more
	return stream
}

var none = session.DigestOf()

// stands is what a client says that has the Waiting of a stream, and nothing more.
func stands(number uint64) *wirepb.Resume {
	return &wirepb.Resume{Stream: number, Records: 1, Digest: none[:]}
}

// TestReturn: a client comes back to its connection, by whatever way it left, and to its streams.
func TestReturn(t *testing.T) {
	for name, leave := range map[string]func(w *world, g guest){
		"it gives up": func(_ *world, g guest) { g.vanish() },
		"nothing comes from it": func(w *world, g guest) {
			w.net.Host("client").Isolate()
			time.Sleep(10 * time.Second)
			w.net.Host("client").Rejoin()
		},
		"nobody has noticed anything": func(*world, guest) {},
	} {
		t.Run(name, func(t *testing.T) {
			inPatientWorld(t, func(w *world) {
				first := w.comes(nil)
				w.begin(first, 1)
				leave(w, first)
				next := w.comes(first.who())
				if next.welcome.GetConnectionId() != first.welcome.GetConnectionId() || !bytes.Equal(next.welcome.GetSecret(), first.welcome.GetSecret()) {
					t.Errorf("%v became %v", first.welcome, next.welcome)
				}
				frames := wire.NewReader(w.sends(next, stands(1)), wire.MaxControl)
				if _, err := wire.ReadMessage[*wirepb.Resumed](frames); err != nil {
					t.Error(err)
				}
				w.begin(next, 2)
				connections := w.server.Connections(0, 10)
				proof, err := quicnet.ReadProof(next.Conn.Conn)
				if err != nil || len(connections) != 1 || connections[0].ODCID != proof.ODCID || len(connections[0].Streams) != 2 ||
					connections[0].Streams[0].Resumes != 1 || connections[0].Streams[0].Away != nil {
					t.Errorf("%+v, %v", connections, err)
				}
			})
		})
	}
}

// TestNewerWins: two at once with the same secret. The newer one has the connection, the older is told.
func TestNewerWins(t *testing.T) {
	inPatientWorld(t, func(w *world) {
		first := w.comes(nil)
		w.begin(first, 1)
		next := w.comes(first.who())
		if e := w.closed(first.Conn); e.ErrorCode != wire.QUICTaken || !strings.HasPrefix(e.ErrorMessage, "resume_taken: ") {
			t.Errorf("the older one is told %v", e)
		}
		older := wire.NewReader(w.sends(next, stands(1)), wire.MaxControl)
		if _, err := wire.ReadMessage[*wirepb.Resumed](older); err != nil {
			t.Fatal(err)
		}
		newer := wire.NewReader(w.sends(next, stands(1)), wire.MaxControl)
		if _, err := wire.ReadMessage[*wirepb.Resumed](newer); err != nil {
			t.Fatal(err)
		}
		var taken *quic.StreamError
		if _, err := older.Next(); !errors.As(err, &taken) || taken.ErrorCode != wire.StreamTaken {
			t.Errorf("the stream that was taken up elsewhere ends in %v", err)
		}
	})
}

// TestReturnRefused: each reason has a code of its own.
func TestReturnRefused(t *testing.T) {
	inPatientWorld(t, func(w *world) {
		plain := w.greeted(0) // a client that said nothing of coming back
		id := w.server.Connections(0, 1)[0].ConnectionID
		g := w.comes(nil)
		w.begin(g, 1)
		g.vanish()
		for name, test := range map[string]struct {
			change func(who *wirepb.Return)
			want   wire.Code
		}{
			"no secret":            {func(who *wirepb.Return) { who.Secret = nil }, wire.CodeResumeSecret},
			"another secret":       {func(who *wirepb.Return) { who.Secret[0]++ }, wire.CodeResumeSecret},
			"a short one":          {func(who *wirepb.Return) { who.Secret = who.Secret[:31] }, wire.CodeResumeSecret},
			"no id":                {func(who *wirepb.Return) { who.ConnectionId = "" }, wire.CodeResumeUnknown},
			"another id":           {func(who *wirepb.Return) { who.ConnectionId = "conn-0000000000000000" }, wire.CodeResumeUnknown},
			"of one who said none": {func(who *wirepb.Return) { who.ConnectionId, who.Secret = id, nil }, wire.CodeResumeUnknown},
		} {
			who := &wirepb.Return{ConnectionId: g.who().GetConnectionId(), Secret: bytes.Clone(g.who().GetSecret())}
			test.change(who)
			if _, err := w.greets(w.dial(0), who); !errors.Is(err, &wire.Error{Code: test.want}) {
				t.Errorf("%s: got %v, want %s", name, err, test.want)
			}
		}
		_ = plain.CloseWithError(wire.QUICOk, "")
		w.begin(w.comes(g.who()), 2) // nobody has disturbed the right one
	})
}

// TestResumeRefused: each way to stand elsewhere than the stream has a code of its own; the stream itself is not disturbed.
func TestResumeRefused(t *testing.T) {
	inPatientWorld(t, func(w *world) {
		other := w.comes(nil)
		w.begin(other, 7)
		g := w.comes(nil)
		w.begin(g, 1)
		refused := func(name string, change func(*wirepb.Resume), want wire.Code) {
			m := stands(1)
			change(m)
			_, err := wire.ReadMessage[*wirepb.Resumed](wire.NewReader(w.sends(g, m), wire.MaxControl))
			if !errors.Is(err, &wire.Error{Code: want}) {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
		refused("another's stream", func(m *wirepb.Resume) { m.Stream = 7 }, wire.CodeResumeStream)
		refused("no stream", func(m *wirepb.Resume) { m.Stream = 0 }, wire.CodeResumeStream)
		refused("more than there is", func(m *wirepb.Resume) { m.Records = 2 }, wire.CodeResumeAhead)
		refused("far more", func(m *wirepb.Resume) { m.Records = 1 << 63 }, wire.CodeResumeAhead)
		refused("a token too many", func(m *wirepb.Resume) { m.Sequence = 1 }, wire.CodeResumeDigest)
		refused("another text", func(m *wirepb.Resume) { m.Digest = make([]byte, 32) }, wire.CodeResumeDigest)
		refused("no digest", func(m *wirepb.Resume) { m.Digest = nil }, wire.CodeResumeDigest)
		w.resumes(g, &wirepb.Resume{Stream: 1, Digest: none[:]}) // from the beginning
		if _, err := g.control.Write(wire.Append(nil, &wirepb.Ack{Stream: 1, Records: 1})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		refused("what it has acknowledged", func(m *wirepb.Resume) { m.Records = 0 }, wire.CodeResumeBehind)
		w.resumes(g, stands(1))
		_, err := wire.ReadMessage[*wirepb.Waiting](wire.NewReader(w.sends(g, &wirepb.Generate{Stream: 1}), wire.MaxControl))
		if !errors.Is(err, &wire.Error{Code: wire.CodeConflict}) {
			t.Errorf("a stream that has begun begins again: %v", err)
		}
	})
}

// resumes takes up a stream.
func (w *world) resumes(g guest, m *wirepb.Resume) {
	w.Helper()
	if _, err := wire.ReadMessage[*wirepb.Resumed](wire.NewReader(w.sends(g, m), wire.MaxControl)); err != nil {
		w.Error(err)
	}
}

// TestNobodyReturns: what a lost client has is kept for a while, and then given back; one that says goodbye is not waited for.
func TestNobodyReturns(t *testing.T) {
	for name, goodbye := range map[string]bool{"lost": false, "goodbye": true} {
		t.Run(name, func(t *testing.T) {
			inPatientWorld(t, func(w *world) {
				g, idle := w.comes(nil), w.comes(nil)
				w.begin(g, 1)
				code := wire.QUICLost
				if goodbye {
					code = wire.QUICOk
				}
				_, _ = g.CloseWithError(code, ""), idle.CloseWithError(code, "")
				time.Sleep(waits - time.Second)
				connections := w.server.Connections(0, 10)
				if want := map[bool]int{false: 2, true: 0}[goodbye]; len(connections) != want || w.server.Open() != 0 {
					t.Errorf("connections: %+v", connections)
				}
				if !goodbye && (connections[0].ODCID != "" || connections[0].Streams[0].Away == nil) {
					t.Errorf("it looks as if the client were there: %+v", connections[0])
				}
				time.Sleep(3 * time.Second)
				if left := w.server.Connections(0, 10); len(left) > 0 {
					t.Errorf("left: %+v", left)
				}
				if _, err := w.greets(w.dial(0), g.who()); !errors.Is(err, &wire.Error{Code: wire.CodeResumeUnknown}) {
					t.Errorf("it comes back later: %v", err)
				}
				for _, kind := range []shares.Kind{shares.Connections, shares.Streams} {
					if most := w.server.shares.Most(kind); kind == shares.Streams && len(most) > 0 {
						t.Errorf("somebody still has something: %v", most)
					}
				}
			})
		})
	}
}

// TestNumbers: each number is used once, in any order within the window, however far they jump.
func TestNumbers(t *testing.T) {
	var n numbers
	for _, step := range []struct {
		number uint64
		want   bool
	}{
		{0, false},
		{3, true},
		{1, true},
		{3, false},
		{2, true},
		{1, false},
		{window, true},
		{4, true},
		{window + 1, true},
		{1, false},
		{5, true},
		{5 * window, true},
		{4 * window, false},
		{4*window + 1, true},
		{4*window + 1, false},
		{5*window - 1, true},
		{1<<64 - 1, true},
		{1<<64 - 1, false},
		{1<<64 - window, true},
		{1<<64 - window - 1, false},
		{7, false},
	} {
		if got := n.use(step.number); got != step.want {
			t.Errorf("%d: %v", step.number, got)
		}
	}
}
