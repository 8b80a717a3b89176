package link

import (
	"fmt"
	"time"
)

// reportLate is how late Progress may be: a director has given the worker up much earlier.
const reportLate = 2 * time.Second

// Working returns an error where directors hear nothing from this worker. It takes the locks of all
// links on its way.
func (s *Server) Working() error {
	s.mu.Lock()
	links := s.allLinks()
	s.mu.Unlock()
	for _, l := range links {
		sessions := l.count() // which waits for the lock that whoever starts one takes
		if late := l.late(); late > reportLate {
			return fmt.Errorf("no progress is reported to director %s, for %v, with %d sessions", l.director, late.Round(time.Millisecond), sessions)
		}
	}
	return nil
}

// count returns how many sessions the link serves.
func (l *link) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sessions)
}

// late returns for how long Progress is overdue.
func (l *link) late() time.Duration {
	due := l.due.Load()
	if due == nil {
		return 0
	}
	return time.Since(*due)
}

// reportIn says when the next Progress is due.
func (l *link) reportIn(every time.Duration) {
	due := time.Now().Add(every)
	l.due.Store(&due)
}
