package session_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/handover"
	"github.com/connswap/connswap/services/director/internal/link"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestTranscripts plays the scripts in testdata. Each command is something that a worker, the client, an operator or time does; below it stands what the
// director then sends, to each worker in the order in which it is sent, what the client reads, and how handovers end. If a change is right:
//
//	go test ./services/director/internal/session -run TestTranscripts -rewrite
//
// In files whose name begins with along the client has asked for a standby. The commands:
//
//	worker NAME [stateful] [engine=E] [full]      comes up
//	NAME begins [epoch=N] [at=N] [other-text]     with what it was told to last, if it is not said otherwise
//	NAME makes FROM [TO] [epoch=N]                tokens
//	NAME ends | fails CODE | refuses CODE         its attempt
//	NAME prepared N | captured N | keeps N        answers as a standby, for the engine's state, and as the keeper of a checkpoint
//	NAME dies | reports-failure | available | unavailable
//	plan [to=NAME] [confirm]                      a planned handover; confirm, veto and give-up decide on it
//	client stalls | reads | leaves
//	state arrives N                               a checkpoint is kept by the director
//	wait DURATION
//	together                                      the commands in its input happen before the owner of the stream looks
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		synctest.Test(t, func(t *testing.T) {
			s := &stage{play: newPlay(t, script{cfg: staged, tokens: 12, along: strings.HasPrefix(filepath.Base(path), "along")}), actors: map[string]*role{}}
			defer s.close()
			s.told("waits")
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				s.T = t
				s.perform(append([]string{d.Cmd}, words(d)...))
				if d.Cmd == "together" {
					release := s.hold()
					for line := range strings.Lines(d.Input) {
						s.perform(strings.Fields(line))
					}
					release()
				}
				return s.happened()
			})
		})
	})
}

// staged makes checkpoints of stateful engines every ten seconds.
func staged(c *session.Config) { c.Checkpoint.Interval = 10 * time.Second }

func words(d *datadriven.TestData) (all []string) {
	for _, arg := range d.CmdArgs {
		all = append(all, arg.String())
	}
	return all
}

// stage is a play whose actors do what a script says.
type stage struct {
	*play
	actors map[string]*role
	state  string // of the handover under way, as it was shown last
	shown  int    // records of handovers
}

// role is an actor that remembers what it was told last.
type role struct {
	*actor
	epoch, next, capture, made uint64
}

func (s *stage) perform(args []string) {
	switch args[0] {
	case "worker":
		s.enters(args[1], args[2:])
	case "plan":
		p := handover.Plan{Cause: "operator", Confirm: slices.Contains(args, "confirm"), To: option(args, "to")}
		p.Done = func(migration.Record) {}
		s.rollBack = s.s.Initiate(p)
	case "confirm", "veto":
		s.s.Decide(args[0] == "confirm", "not now", func(error) {})
	case "give-up":
		s.rollBack("given up")
	case "client":
		map[string]func(){"stalls": s.client.Stall, "reads": s.client.Resume, "leaves": s.client.Leave}[args[1]]()
	case "state":
		s.keeper.arrive(number(args[2]), nil)
	case "wait":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			s.Fatal(err)
		}
		time.Sleep(d + 2*clock.Tick) // by the stall-proof clock
		s.client.Wake()
	case "together":
	default:
		s.acts(s.actors[args[0]], args[1], args[2:])
	}
}

func (s *stage) enters(label string, args []string) {
	s.actors[label] = &role{actor: s.worker(label, func(p *link.Peer) {
		p.Models[0].Stateful = slices.Contains(args, "stateful")
		if engine := option(args, "engine"); engine != "" {
			p.Models[0].Fingerprint = engine
		}
		if slices.Contains(args, "full") {
			p.Capacity = 0
		}
	})}
}

func (s *stage) acts(r *role, what string, args []string) {
	if r == nil {
		s.Fatalf("nobody is called like that: %s %v", what, args)
	}
	epoch := r.epoch
	if given := option(args, "epoch"); given != "" {
		epoch = number(given)
	}
	switch what {
	case "begins":
		at := r.next
		if given := option(args, "at"); given != "" {
			at = number(given)
		}
		m := &wirepb.Begin{Session: 7, Epoch: epoch, NextSequence: at, Digest: digest(at - 1)}
		if slices.Contains(args, "other-text") {
			m.Digest = digest(at)
		}
		if class := option(args, "pledge"); class != "" {
			m.Pledge = &wirepb.Begin_Pledge{Continuity: classOf(s, class), Portable: slices.Contains(args, "portable"), Resumed: wire.ContinuityExact}
			if how := option(args, "resumed"); how != "" {
				m.Pledge.Resumed = classOf(s, how)
			}
		}
		r.speak(wire.Append(nil, m))
	case "makes":
		from := number(args[0])
		to := from
		if len(args) > 1 && !strings.Contains(args[1], "=") {
			to = number(args[1])
		}
		r.made = to
		s.atOnce(func() { r.speak(frames(epoch, from, to)) })
	case "ends":
		r.speak(ends(epoch, r.made))
	case "fails":
		r.speak(wire.Append(nil, &wirepb.Fail{Session: 7, Epoch: epoch, Code: args[0], Message: "no"}))
	default:
		s.reports(r, what, epoch, args)
	}
}

func classOf(s *stage, name string) uint32 {
	class, ok := wire.ParseContinuity(name)
	if !ok {
		s.Fatalf("there is no class %q", name)
	}
	return class
}

func (s *stage) reports(r *role, what string, epoch uint64, args []string) {
	var m wire.Message
	switch what {
	case "refuses":
		m = &wirepb.Refused{Session: 7, Epoch: epoch, Code: args[0], Message: "no"}
	case "prepared":
		m = &wirepb.Prepared{Session: 7, Epoch: epoch, Sequence: number(args[0])}
	case "captured":
		m = &wirepb.Captured{Session: 7, Epoch: epoch, Capture: r.capture, Sequence: number(args[0])}
	case "keeps":
		m = &wirepb.Held{Session: 7, SourceEpoch: epoch, Sequence: number(args[0])}
	case "reports-failure":
		m = &wirepb.WorkerStatus{Failed: true, Reason: "simulated"}
	case "available", "unavailable":
		m = &wirepb.WorkerStatus{Available: what == "available"}
	case "dies":
		r.Lose(link.CauseTether)
		return
	default:
		s.Fatalf("nobody knows how to %s", what)
	}
	if err := r.Report(m); err != nil {
		s.Fatal(err)
	}
}

// atOnce has something happen before the owner looks, if there still is one: else it would depend on the scheduler what
// the owner finds.
func (s *stage) atOnce(f func()) {
	release := func() {}
	if s.s.Snapshot().Ended == nil {
		release = s.hold()
	}
	f()
	release()
}

// speak says something on the token stream. A worker that breaks the protocol loses its stream, not its link.
func (r *role) speak(b []byte) {
	if err := r.Say(b); err != nil {
		r.play.Fatal(err)
	}
}

// happened returns what came of the last commands.
func (s *stage) happened() string {
	synctest.Wait()
	var b strings.Builder
	labels := make([]string, 0, len(s.actors))
	for label := range s.actors {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	for _, label := range labels {
		r := s.actors[label]
		r.read()
		for _, m := range r.mail {
			r.learns(m)
			fmt.Fprintf(&b, "director → %s: %s\n", label, said(m))
		}
		r.mail = nil
	}
	if text := spoken(s.play, s.client.Read()); text != "" {
		fmt.Fprintf(&b, "client reads: %s\n", text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.over[s.shown:] {
		fmt.Fprintf(&b, "handover: %s %s → %s, epoch %d, cut %d: %s", r.Kind, r.From, r.To, r.Epoch, r.Cut, r.State)
		if r.Reason != "" {
			fmt.Fprintf(&b, " (%s)", r.Reason)
		}
		fmt.Fprintln(&b)
	}
	s.shown = len(s.over)
	state := ""
	if r := s.s.Swap(); r != nil {
		state = fmt.Sprintf("handover: %s from %s is %s", r.Kind, r.From, r.State)
	}
	if state != "" && state != s.state {
		fmt.Fprintln(&b, state)
	}
	s.state = state
	return b.String()
}

// learns remembers what a message asks for.
func (r *role) learns(m wire.Message) {
	switch m := m.(type) {
	case *wirepb.Attach:
		r.epoch, r.made = m.GetEpoch(), uint64(len(m.GetPrefix().GetLengths()))
		r.next = r.made + 1
	case *wirepb.Pivot:
		r.next, r.made = m.GetCut()+1, m.GetCut()
	case *wirepb.Capture:
		r.capture = m.GetCapture()
	case *wirepb.Hold:
		r.epoch = m.GetSourceEpoch()
	}
}

// said is a message to a worker in words.
func said(m wire.Message) string {
	switch m := m.(type) {
	case *wirepb.Attach:
		what, extra := "Attach", fmt.Sprintf(", credit %d", m.GetCredit())
		if m.GetStandby() {
			what, extra = "Attach as standby", ""
		}
		if m.GetAlong() {
			what += " that runs along"
		}
		if m.GetTries() > 0 {
			extra += fmt.Sprintf(", try %d behind engine %s", m.GetTries(), m.GetFingerprint())
		}
		if c := m.GetCheckpoint(); c != nil {
			extra += fmt.Sprintf(", checkpoint after %d at %s", c.GetSequence(), c.GetAddr())
		}
		return fmt.Sprintf("%s, epoch %d, after %d tokens%s", what, m.GetEpoch(), len(m.GetPrefix().GetLengths()), extra)
	case *wirepb.Credit:
		return fmt.Sprintf("Credit up to %d, epoch %d", m.GetGrants()[0].GetSequence(), m.GetGrants()[0].GetEpoch())
	case *wirepb.Cancel:
		return fmt.Sprintf("Cancel epoch %d", m.GetEpoch())
	case *wirepb.Allow:
		return fmt.Sprintf("Allow %s to %s, epochs %d to %d", strings.ToLower(strings.TrimPrefix(m.GetToken().GetPurpose().String(), "PURPOSE_")),
			m.GetToken().GetTarget(), m.GetToken().GetFromEpoch(), m.GetToken().GetToEpoch())
	case *wirepb.Feed:
		return fmt.Sprintf("Feed tokens %d to %d", m.GetFirstSequence(), m.GetFirstSequence()+uint64(len(m.GetLengths()))-1)
	case *wirepb.Pivot:
		return fmt.Sprintf("Pivot after %d, with %d tokens, credit %d", m.GetCut(), len(m.GetRest().GetLengths()), m.GetCredit())
	case *wirepb.Capture:
		return fmt.Sprintf("Capture %d, epoch %d", m.GetCapture(), m.GetEpoch())
	case *wirepb.Fetch:
		return fmt.Sprintf("Fetch the state after %d at %s", m.GetSequence(), m.GetAddr())
	case *wirepb.Hold:
		return fmt.Sprintf("Hold the state after %d at %s", m.GetFrom().GetSequence(), m.GetFrom().GetAddr())
	case *wirepb.Revoke:
		return fmt.Sprintf("Revoke up to epoch %d", m.GetEpoch())
	case *wirepb.Discard:
		return "Discard"
	}
	return fmt.Sprintf("%T", m)[len("*wirepb."):]
}

func option(args []string, name string) string {
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, name+"="); ok {
			return value
		}
	}
	return ""
}

func number(s string) (n uint64) {
	_, _ = fmt.Sscan(s, &n) // 0 for what is none shows in the transcript
	return n
}
