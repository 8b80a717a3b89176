package link

import (
	"cmp"

	"go.uber.org/zap"
)

// drainMark records that an operator of a director takes this worker out of use, or puts it back. The director acts on
// it; the worker only remembers it for the directors that it registers at later, until its process ends.
func (s *Server) drainMark(drained bool, by string) {
	s.mu.Lock()
	before := s.drained != ""
	s.drained = ""
	if drained {
		s.drained = cmp.Or(by, "unnamed")
	}
	s.mu.Unlock()
	switch {
	case drained && !before:
		s.deps.Log.Info("drained by an operator; this will be told to other directors too, until it is put back into use", zap.String("director", by))
	case before && !drained:
		s.deps.Log.Info("put back into use by an operator", zap.String("director", by))
	}
}

// DrainedBy is the id of the director whose operator has taken the worker out of use, or empty.
func (s *Server) DrainedBy() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained
}
