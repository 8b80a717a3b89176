package session

import (
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// What is below brings sessions into states, for tests of whoever lists them.

// MaxEnded bounds what is remembered of sessions that have ended.
const MaxEnded = maxEnded

func (s *Session) Finish(state State) { s.end(state, "") }

func (s *Session) Waits() { s.wait() }

func (s *Session) Moves(r migration.Record) { s.swap = &r }

func (s *Session) Streams() {
	s.record.Expect(1)
	s.record.Serve(1, "a", &wirepb.Assigned{})
}

func (m *Manager) Remembered() int { return len(m.ended) }

func (m *Manager) LiveConnections() int { return len(m.live) }
