package link_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/link/linktest"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// world is one link to a scripted worker, and what its owner and its streams were told.
type world struct {
	*testing.T
	*link.Link
	worker *linktest.Fake
	config link.Config

	mu    sync.Mutex
	log   []string
	cause link.Cause
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, what)
}

// said returns what was noted since the last call.
func (w *world) said() (all []string) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	all, w.log = w.log, nil
	return all
}

// owner is the world as the link's owner.
type owner struct{ *world }

func (o owner) Up(*link.Link)                           { o.note("up") }
func (o owner) Status(*link.Link, *wirepb.WorkerStatus) { o.note("status") }
func (o owner) Declined(*link.Link)                     { o.note("declined") }

func (o owner) Down(_ *link.Link, cause link.Cause) {
	o.note("down")
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cause = cause
}

// sink is a stream that notes what it gets.
type sink struct {
	link.Sink
	*world
	name string
}

func (s sink) Token(t wire.Chunk, _ time.Time) bool {
	s.note(s.name + " token")
	return t.Sequence%2 == 1 // as if each second one came with the one before it
}

func (s sink) Flush() *wirepb.Credit_Grant { s.note(s.name + " flush"); return nil }
func (s sink) Client() uint64              { return uint64(s.name[0]) }
func (s sink) Begun(*wirepb.Begin)         { s.note(s.name + " begun") }
func (s sink) Ended(*wirepb.End)           { s.note(s.name + " ended") }
func (s sink) Failed(*wirepb.Fail)         { s.note(s.name + " failed") }
func (s sink) Refused(*wirepb.Refused)     { s.note(s.name + " refused") }
func (s sink) Prepared(*wirepb.Prepared)   { s.note(s.name + " prepared") }
func (s sink) Captured(*wirepb.Captured)   { s.note(s.name + " captured") }
func (s sink) Held(*wirepb.Held)           { s.note(s.name + " held") }

// config is that of all links here.
var config = link.Config{
	DirectorID: "director-1", Instance: "d", KeepAlive: 100 * time.Millisecond,
	IdleTimeout: 300 * time.Millisecond, ProgressTimeout: 500 * time.Millisecond,
	Clock: &clock.StallProof{},
}

// inWorld runs a test with a link that is up.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		peer := link.Peer{Label: "a", Instance: "1", Capacity: 9, Version: 2}
		w := &world{T: t, worker: linktest.NewFake(peer), config: config}
		w.config.Clock = &clock.StallProof{}
		w.Link = link.New(w.config, w.worker, owner{w}, peer, zap.NewNop())
		ctx, stop := context.WithCancelCause(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if up, err := w.Link.Run(ctx); !up || err == nil {
				t.Errorf("Run returned %v, %v", up, err)
			}
		}()
		<-w.worker.Connected()
		w.expect("up")
		test(w)
		stop(link.Lost(link.CauseShutdown, nil))
		<-ended
	})
}

func (w *world) expect(want ...string) {
	w.Helper()
	got := w.said()
	if len(got) != len(want) {
		w.Errorf("got %q, want %q", got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			w.Errorf("got %q, want %q", got, want)
			return
		}
	}
}

// sent fails unless the director sent exactly these types of messages since the last call.
func (w *world) sent(want ...wire.Message) {
	w.Helper()
	synctest.Wait()
	got, err := w.worker.Received()
	if err != nil || len(got) != len(want) {
		w.Fatalf("the director sent %v, %v, want %v", got, err, want)
	}
	for i := range got {
		if got[i].ProtoReflect().Type() != want[i].ProtoReflect().Type() {
			w.Errorf("the director sent %T as message %d, want %T", got[i], i, want[i])
		}
	}
}

func (w *world) report(m wire.Message) {
	w.Helper()
	if err := w.worker.Report(m); err != nil {
		w.Fatal(err)
	}
}

func (w *world) say(frames []byte) {
	w.Helper()
	if err := w.worker.Say(frames); err != nil {
		w.Fatal(err)
	}
}

func (w *world) attach(session, epoch uint64, name string) {
	w.Attach(&wirepb.Attach{Session: session, Epoch: epoch}, sink{world: w, name: name})
}

func token(session, epoch, sequence uint64) []byte {
	return wire.AppendLinkChunk(nil, wire.Chunk{Session: session, Epoch: epoch, Sequence: sequence, Text: []byte("x")})
}

// TestWhoHears brings what the worker says to the stream that is attached, and to nobody else.
func TestWhoHears(t *testing.T) {
	inWorld(t, func(w *world) {
		w.attach(1, 1, "a")
		w.attach(2, 1, "b")
		w.sent(&wirepb.Attach{}, &wirepb.Attach{})
		w.say(wire.Append(nil, &wirepb.Begin{Session: 1, Epoch: 1}))
		w.expect("a begun")
		w.say(append(append(token(2, 1, 1), token(1, 1, 1)...), token(7, 1, 1)...)) // at once; 7 is nobody's
		w.expect("b token", "b flush", "a token", "a flush")
		if n := w.Fenced(); n != 1 {
			t.Errorf("%d tokens counted as fenced", n)
		}
		w.Cancel(1, 1)
		w.attach(1, 2, "c")
		w.Cancel(1, 1) // late: it means the attempt that is gone
		w.sent(&wirepb.Cancel{}, &wirepb.Attach{}, &wirepb.Cancel{})
		w.report(&wirepb.Prepared{Session: 1, Epoch: 2})
		w.say(wire.Append(nil, &wirepb.End{Session: 1, Epoch: 2}))
		w.say(wire.Append(nil, &wirepb.Fail{Session: 9}))
		w.expect("c prepared", "c ended")
	})
}

// TestRefusals lets go of a stream that the worker did not take. That the worker has no room is news for the owner,
// unless the worker speaks of a stream that it was not given.
func TestRefusals(t *testing.T) {
	inWorld(t, func(w *world) {
		full := &wirepb.Refused{Session: 7, Epoch: 1, Code: string(wire.CodeCapacity)}
		w.report(full)
		w.expect()
		w.attach(7, 1, "a")
		w.report(full)
		w.report(full)
		w.expect("declined", "a refused")
		w.attach(7, 2, "a")
		w.report(&wirepb.Refused{Session: 7, Epoch: 2, Code: string(wire.CodeInvalid)})
		w.expect("a refused")
	})
}

// TestHold asks the worker to keep something. Who has asked is forgotten with the answer, or when it is not wanted any
// more.
func TestHold(t *testing.T) {
	inWorld(t, func(w *world) {
		hold, s := &wirepb.Hold{From: &wirepb.Fetch{Session: 1}}, sink{world: w, name: "a"}
		w.report(&wirepb.Held{Session: 1})
		w.Hold(hold, s)
		w.report(&wirepb.Held{Session: 2})
		w.expect()
		w.report(&wirepb.Held{Session: 1})
		w.report(&wirepb.Held{Session: 1})
		w.expect("a held")
		w.Hold(hold, s)
		w.Discard(1)
		w.report(&wirepb.Held{Session: 1})
		w.expect()
		w.sent(&wirepb.Hold{}, &wirepb.Hold{}, &wirepb.Discard{})
	})
}

// TestFailedWorkerHasNoStreams loses the streams, not the link.
func TestFailedWorkerHasNoStreams(t *testing.T) {
	inWorld(t, func(w *world) {
		w.attach(1, 1, "a")
		w.report(&wirepb.WorkerStatus{Failed: true})
		w.say(token(1, 1, 1))
		w.expect("status")
		if w.Available() || !w.Up() || w.Fenced() != 1 {
			t.Errorf("available %v, up %v, %d fenced", w.Available(), w.Up(), w.Fenced())
		}
		w.report(&wirepb.WorkerStatus{Available: true})
		if !w.Available() {
			t.Error("not available again")
		}
	})
}

// TestReason says why the worker takes nothing, for as long as it takes nothing.
func TestReason(t *testing.T) {
	inWorld(t, func(w *world) {
		if reason := w.Reason(); reason != "" {
			t.Errorf("available, but %q", reason)
		}
		w.report(&wirepb.WorkerStatus{Reason: "its server loads\x1b[2J a model"})
		if reason := w.Reason(); w.Available() || reason != "its server loads"+" [2J a model" {
			t.Errorf("available %v, %q", w.Available(), reason)
		}
		w.report(&wirepb.WorkerStatus{Available: true, Reason: "by mistake"})
		if reason := w.Reason(); !w.Available() || reason != "" {
			t.Errorf("available %v, %q", w.Available(), reason)
		}
	})
}

// TestBrokenProtocol says what has no place on a stream.
func TestBrokenProtocol(t *testing.T) {
	for name, say := range map[string]func(w *world) error{
		"on the control stream": func(w *world) error { return w.worker.Report(&wirepb.Begin{}) },
		"on a token stream":     func(w *world) error { return w.worker.Say(wire.Append(nil, &wirepb.Progress{})) },
		"no token":              func(w *world) error { return w.worker.Say([]byte{2, byte(wire.TypeLinkToken), 0xff}) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				if err := say(w); err == nil {
					t.Error("the link lives")
				}
				<-w.worker.Closed()
				if w.cause != link.CauseProtocol || w.Up() {
					t.Errorf("lost because %s", w.cause)
				}
			})
		})
	}
}

// judge asks for a verdict at a time.
func (w *world) judge(now time.Duration, factor time.Duration, want link.Cause) {
	w.Helper()
	err := w.Judge(now, factor)
	if want == "" && err != nil || want != "" && link.CauseOf(err) != want {
		w.Errorf("at %v: %v, want %q", now, err, want)
	}
}

// hurry gives the worker a stream at a time, by which the link is judged as a busy one.
func (w *world) hurry(now time.Duration) {
	w.attach(99, 1, "busy")
	w.Tend(now)
	w.report(&wirepb.WorkerStatus{Available: true}) // a packet
}

// progress has the worker report that it has received all, and sent what came.
func (w *world) progress(m *wirepb.Progress) {
	w.Helper()
	if err := w.worker.Progress(m); err != nil {
		w.Fatal(err)
	}
}

// TestJudge lets the worker fall silent: no packet, or packets without progress.
func TestJudge(t *testing.T) {
	inWorld(t, func(w *world) {
		w.hurry(time.Second)
		w.judge(time.Second, 1, "")
		w.judge(1299*time.Millisecond, 1, "")
		w.judge(1300*time.Millisecond, 1, link.CauseIdle)
		w.judge(1300*time.Millisecond, 2, "")
		w.report(&wirepb.WorkerStatus{}) // a packet, no progress
		w.judge(1400*time.Millisecond, 1, "")
		w.report(&wirepb.WorkerStatus{})
		w.judge(1500*time.Millisecond, 1, link.CauseProgress)
		w.progress(&wirepb.Progress{Count: 2})
		w.judge(1500*time.Millisecond, 1, "")
		w.progress(&wirepb.Progress{Count: 1}) // overtaken
		w.judge(2000*time.Millisecond, 1, link.CauseProgress)
	})
}

// TestSilenceThatThePathExplains allows a link on a long path more, and one on a short path nothing.
func TestSilenceThatThePathExplains(t *testing.T) {
	for _, c := range []struct {
		roundTrip, deviation, idle, progress time.Duration
	}{
		{time.Millisecond, 500 * time.Microsecond, 300 * time.Millisecond, 500 * time.Millisecond},
		{40 * time.Millisecond, 10 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond},
		{300 * time.Millisecond, 30 * time.Millisecond, 620 * time.Millisecond, 620 * time.Millisecond},
	} {
		inWorld(t, func(w *world) {
			w.worker.Path(c.roundTrip, c.deviation)
			w.hurry(time.Second)
			w.judge(time.Second, 1, "")
			w.judge(time.Second+c.idle-1, 1, "")
			w.judge(time.Second+c.idle, 1, link.CauseIdle)
			w.report(&wirepb.WorkerStatus{})
			w.judge(time.Second+c.progress-1, 1, "")
			w.report(&wirepb.WorkerStatus{})
			w.judge(time.Second+c.progress, 1, link.CauseProgress)
		})
	}
}

// TestDelivery has a worker that makes progress, but does not get what is sent to it, or whose tokens do not come.
func TestDelivery(t *testing.T) {
	for name, c := range map[string]struct {
		attach bool
		report func(n uint64) *wirepb.Progress // the nth
		want   link.Cause
	}{
		"nothing is owed":            {false, func(uint64) *wirepb.Progress { return &wirepb.Progress{Received: 1 << 30} }, ""},
		"the request is not read":    {true, func(uint64) *wirepb.Progress { return &wirepb.Progress{Received: 90} }, link.CauseDelivery},
		"the request is read slowly": {true, func(n uint64) *wirepb.Progress { return &wirepb.Progress{Received: 90 + n/9} }, ""},
		"tokens do not come":         {false, func(uint64) *wirepb.Progress { return &wirepb.Progress{Received: 1 << 30, Sent: 7} }, link.CauseDelivery},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				if c.attach {
					w.Attach(&wirepb.Attach{Session: 1, Epoch: 1, ConnectionId: string(make([]byte, 10_000))}, sink{world: w, name: "a"})
				}
				now := time.Second
				w.hurry(now)
				for n := uint64(1); n <= 30; n++ {
					m := c.report(n)
					m.Count = n
					w.progress(m)
					want := link.Cause("")
					if n > 20 { // 2 s after the first
						want = c.want
					}
					w.judge(now, 1, want)
					now += 100 * time.Millisecond
				}
			})
		})
	}
}

// TestWorkerThatTakesNothing has prompts wait for a worker that reads none: what waits is bounded, and the worker is
// lost.
func TestWorkerThatTakesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.worker.StopReading()
		prompt := string(make([]byte, 8<<20))
		for session := uint64(1); session <= 2*wire.MaxBacklog>>23 && w.Up(); session++ {
			w.Attach(&wirepb.Attach{Session: session, Epoch: 1, Request: &wirepb.Request{Prompt: prompt}}, sink{world: w, name: "a"})
			synctest.Wait()
		}
		if w.Up() || w.cause != link.CauseBacklog {
			t.Errorf("up %v, lost because %q", w.Up(), w.cause)
		}
	})
}

// TestDirectorWasStopped has the director's process stopped until its links have run out at both ends, and their
// tethers are closed. That is no worker's fault. After a short stop, a closed tether is what it always is.
func TestDirectorWasStopped(t *testing.T) {
	for stop, want := range map[time.Duration]link.Cause{35 * time.Second: link.CauseStalled, 5 * time.Second: link.CauseTether} {
		inWorld(t, func(w *world) {
			ctx, cancel := context.WithCancel(w.Context())
			ended := make(chan struct{})
			stopped := make(chan time.Duration, 1)
			go func() {
				defer close(ended)
				_ = w.config.Clock.Run(ctx, func() {
					select {
					case d := <-stopped:
						time.Sleep(d)
					default:
					}
				})
			}()
			time.Sleep(time.Second)
			stopped <- stop
			time.Sleep(stop + clock.Tick)
			w.worker.Cut(link.Lost(link.CauseTether, nil))
			<-w.worker.Closed()
			if w.cause != want {
				t.Errorf("stopped for %v: %s", stop, w.cause)
			}
			cancel()
			<-ended
		})
	}
}

// TestRhythm has a link hurry from its first stream on, and take its time again a while after its last.
func TestRhythm(t *testing.T) {
	inWorld(t, func(w *world) {
		rhythm := func(now time.Duration, want ...time.Duration) {
			t.Helper()
			w.Tend(now)
			w.report(&wirepb.WorkerStatus{Available: true}) // a packet
			w.judge(now, 1, "")
			synctest.Wait()
			if _, err := w.worker.Received(); err != nil {
				t.Fatal(err)
			}
			if got := w.worker.Rhythm(); !slices.Equal(got, want) {
				t.Errorf("at %v the worker was asked for progress every %v, want %v", now, got, want)
			}
		}
		const slow, fast = 5 * time.Second, 100 * time.Millisecond
		if got := w.worker.Hello().GetProgressIntervalMs(); got != uint32(slow.Milliseconds()) {
			t.Errorf("at first the worker shall report progress every %d ms", got)
		}
		rhythm(1 * time.Second)
		rhythm(4 * time.Second)
		w.attach(1, 1, "a")
		w.attach(2, 1, "a")
		rhythm(5*time.Second, fast)
		rhythm(5050 * time.Millisecond)
		rhythm(5200*time.Millisecond, fast) // nothing came for longer than that: it is asked again
		w.Cancel(1, 1)
		for now := 5250 * time.Millisecond; now < 15*time.Second; now += 50 * time.Millisecond {
			w.progress(&wirepb.Progress{Count: uint64(now), Received: 1 << 30})
			rhythm(now)
		}
		w.Cancel(2, 1)
		for now := 15 * time.Second; now < 19900*time.Millisecond; now += 50 * time.Millisecond {
			w.progress(&wirepb.Progress{Count: uint64(now), Received: 1 << 30})
			rhythm(now)
		}
		rhythm(20*time.Second, slow)
		rhythm(25 * time.Second)
	})
}

// TestWorkerThatDiedAtLeisure has a worker vanish without a word while it has no streams. Nobody is in a hurry to
// notice, until it is given one: then it is lost as soon as any other.
func TestWorkerThatDiedAtLeisure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.Tend(time.Second)
		w.judge(time.Second, 1, "")
		w.Tend(15 * time.Second)
		w.judge(15*time.Second, 1, "")
		w.judge(16*time.Second, 1, link.CauseIdle)
		w.attach(1, 1, "a")
		w.Tend(15 * time.Second)
		w.judge(15*time.Second, 1, "")
		w.Tend(15190 * time.Millisecond)
		w.judge(15190*time.Millisecond, 1, "")
		w.judge(15200*time.Millisecond, 1, link.CauseIdle)
	})
}

// TestBatch sends tokens of three streams of two clients, all at once: each client's streams are flushed together,
// once, and when the tokens of another client follow.
func TestBatch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.attach(1, 1, "a1")
		w.attach(2, 1, "b2")
		w.attach(3, 1, "a3")
		w.say(slices.Concat(token(1, 1, 1), token(3, 1, 1), token(1, 1, 2), token(2, 1, 1), token(2, 1, 2), token(3, 1, 3)))
		w.expect("a1 token", "a3 token", "a1 token", "a1 flush", "a3 flush", "b2 token", "b2 token", "b2 flush", "a3 token", "a3 flush")
		w.say(token(2, 1, 3))
		w.expect("b2 token", "b2 flush")
	})
}
