package session_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/session/sessiontest"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func newTestManager(retention time.Duration) *session.Manager {
	return session.NewManager(session.Config{MaxBytes: 10}, session.Deps{Clock: &clock.StallProof{}, Log: zap.NewNop()}, retention)
}

// nobody reads what the stream brings.
func nobody(log *stream.Log, tell func(any)) session.Leg {
	return sessiontest.New(log, stream.Cursor{}, tell, &clock.StallProof{})
}

// create makes a session that does not run, on the first stream of its connection that is free.
func create(m *session.Manager, connection, number uint64) *session.Session {
	return m.Create(session.Identity{Connection: connection, ConnectionID: fmt.Sprintf("conn-%d", connection), StreamID: number}, &wirepb.Request{}, nil, nobody)
}

// over has a session end, and retires it.
func over(m *session.Manager, s *session.Session, state session.State) {
	s.Finish(state)
	m.Retire(s)
}

// listed is a list in short: which streams, in which states.
func listed(all []session.Listed) string {
	short := ""
	for _, l := range all {
		short += fmt.Sprintf("%s/%d:%s ", l.ConnectionID, l.StreamID, l.State)
	}
	return short
}

func TestFind(t *testing.T) {
	m := newTestManager(time.Minute)
	one := create(m, 1, 1)
	first, second := create(m, 2, 1), create(m, 2, 2)
	for _, c := range []struct {
		connection string
		stream     uint64
		want       *session.Session
		code       wire.Code
	}{
		{"conn-1", 1, one, ""},
		{"conn-1", 0, one, ""},
		{"conn-1", 2, nil, wire.CodeNotFound},
		{"conn-2", 1, first, ""},
		{"conn-2", 2, second, ""},
		{"conn-2", 0, nil, wire.CodeInvalid},
		{"conn-3", 0, nil, wire.CodeNotFound},
		{"", 0, nil, wire.CodeNotFound},
	} {
		found, err := m.Find(c.connection, c.stream)
		if e := new(wire.Error); found != c.want || (err == nil) != (c.code == "") || err != nil && (!errors.As(err, &e) || e.Code != c.code) {
			t.Errorf("%s, stream %d: %v, %v, want %v, %q", c.connection, c.stream, found, err, c.want, c.code)
		}
	}
	over(m, first, session.Done)
	if found, err := m.Find("conn-2", 0); found != second || err != nil {
		t.Errorf("the only one left: %v, %v", found, err)
	}
	over(m, second, session.Done)
	if _, err := m.Find("conn-2", 0); err == nil {
		t.Error("found on a connection that has no stream")
	}
}

func TestLists(t *testing.T) {
	m := newTestManager(time.Minute)
	a, b, c := create(m, 2, 1), create(m, 1, 2), create(m, 1, 1)
	d := create(m, 3, 1)
	a.Streams()
	b.Waits()
	b.Moves(migration.Record{Started: time.Unix(2, 0)})
	c.Moves(migration.Record{Started: time.Unix(1, 0), Kind: "planned"})
	over(m, d, session.Failed)
	if got, want := listed(m.List()), "conn-2/1:streaming conn-1/2:waiting conn-1/1:moving conn-3/1:failed "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := listed(m.List(session.Failed, session.Streaming)), "conn-2/1:streaming conn-3/1:failed "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := listed(m.List(session.Done)); got != "" {
		t.Errorf("got %s", got)
	}
	if of := m.Of(1); len(of) != 2 || of[0] != c || of[1] != b || len(m.Of(3)) != 0 {
		t.Errorf("of connection 1: %v", of)
	}
	if swaps := m.Swaps(); len(swaps) != 2 || swaps[0].Kind != "planned" {
		t.Errorf("swaps: %+v", swaps)
	}
	if got, want := fmt.Sprint(m.Count()), "map[cancelled:0 done:0 failed:1 moving:1 streaming:1 waiting:1]"; got != want || m.Running() != 3 {
		t.Errorf("%s, %d run, want %s", got, m.Running(), want)
	}
	m.Retire(d) // again
	if m.Running() != 3 || len(m.List()) != 4 {
		t.Errorf("%d run, %d listed after one was retired twice", m.Running(), len(m.List()))
	}
}

// TestNumbers gives each session a number of its own, rising with age, whatever the caller says.
func TestNumbers(t *testing.T) {
	m := newTestManager(time.Minute)
	for n := uint64(1); n <= 3; n++ {
		s := m.Create(session.Identity{ID: 99, Connection: 4 - n}, &wirepb.Request{Priority: 8}, nil, nobody)
		if s.Who().ID != n || s.Snapshot().Priority != 8 {
			t.Errorf("number %d is %+v", n, s.Who())
		}
	}
}

func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestManager(time.Minute)
		first, second := create(m, 1, 1), create(m, 1, 2)
		over(m, first, session.Done)
		time.Sleep(40 * time.Second)
		over(m, second, session.Cancelled)
		time.Sleep(19 * time.Second)
		if n := len(m.List()); n != 2 {
			t.Errorf("%d listed, before the time of any is over", n)
		}
		time.Sleep(2 * time.Second)
		if got := listed(m.List()); got != "conn-1/2:cancelled " {
			t.Errorf("then %s", got)
		}
		time.Sleep(time.Minute)
		if n := len(m.List()) + m.Remembered(); n != 0 {
			t.Errorf("%d are still known", n)
		}
		long := create(m, 1, 3)
		time.Sleep(time.Hour)
		over(m, long, session.Done)
		if n := len(m.List()); n != 1 {
			t.Errorf("a long stream is listed %d times: its end counts, not its beginning", n)
		}
	})
}

// TestBound has more sessions end than are remembered.
func TestBound(t *testing.T) {
	m := newTestManager(time.Hour)
	for n := range uint64(session.MaxEnded + 10) {
		over(m, create(m, 1, n), session.Done)
	}
	if m.Remembered() > session.MaxEnded {
		t.Errorf("%d are remembered", m.Remembered())
	}
	all := m.List()
	if len(all) > session.MaxEnded || len(all) < session.MaxEnded*9/10 || all[len(all)-1].StreamID != session.MaxEnded+9 {
		t.Errorf("%d listed, the last %+v", len(all), all[len(all)-1])
	}
	if n := m.LiveConnections(); n != 0 || m.Running() != 0 {
		t.Errorf("%d connections, %d sessions run", n, m.Running())
	}
}

// TestListsWhileSessionsEnd lists from several goroutines while sessions come and go: each is listed once.
func TestListsWhileSessionsEnd(t *testing.T) {
	m := newTestManager(time.Hour)
	const connections, streams = 4, 500
	var running, looking sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				seen := map[string]bool{}
				for _, l := range m.List() {
					key := fmt.Sprint(l.ConnectionID, "/", l.StreamID)
					if seen[key] {
						t.Errorf("%s is listed twice", key)
					}
					seen[key] = true
				}
				m.Count()
				m.Swaps()
				_, _ = m.Find("conn-1", 0)
			}
		})
	}
	for c := range uint64(connections) {
		running.Go(func() {
			for n := range uint64(streams) {
				s := create(m, c, n)
				m.Of(c)
				over(m, s, session.Done)
			}
		})
	}
	running.Wait()
	close(stop)
	looking.Wait()
	if n := len(m.List(session.Done)); n != connections*streams || m.Running() != 0 {
		t.Errorf("%d have ended, %d run", n, m.Running())
	}
}

// TestPages follows the list of sessions while some begin and others end: none is listed twice, and none is missing that was
// there all the time.
func TestPages(t *testing.T) {
	m := newTestManager(time.Hour)
	random := rand.New(rand.NewPCG(1, 2))
	var running []*session.Session
	for n := range uint64(500) {
		running = append(running, create(m, n%7, n))
	}
	seen := map[uint64]int{}
	for after, pages := uint64(0), 0; ; pages++ {
		page := m.Page(after, 20)
		for _, l := range page {
			seen[l.ID]++
			require.Greater(t, l.ID, after)
			after = l.ID
		}
		if len(page) < 20 {
			require.GreaterOrEqual(t, pages, 25)
			break
		}
		for range 50 {
			i := random.IntN(len(running))
			if one := running[i]; one != nil {
				over(m, one, session.Done)
				running[i] = nil
			}
		}
		if pages < 10 {
			running = append(running, create(m, 8, uint64(pages)))
		}
	}
	for id := range uint64(510) {
		require.Equal(t, 1, seen[id+1], "session %d", id+1)
	}
	require.Len(t, m.Page(500, 3), 3)
	require.Len(t, m.Page(0, 1000, session.Done), len(m.List(session.Done)))
}
