package handover

import (
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	// nearEnough is how many tokens a standby may lack: they travel with the pivot.
	nearEnough = 16
	// feedMost bounds the rounds for a standby that does not catch up; what it lacks then travels with the pivot too.
	feedMost = 8
)

// standby is the target of a planned handover while the source serves: which tokens it has, what it was asked for, and
// how it is brought to where the stream is. The Handover owns it, and is the only one to call it.
type standby struct {
	source, target *attempt.Attempt
	timeout        time.Duration // of the transfer of an engine's state
	log            *zap.Logger

	prepared uint64 // it has got to behind this token
	fed      uint64 // it was given the tokens up to this one, and may be on its way there
	needs    uint64 // it cannot take over before this token: its engine's state is after it
	rounds   int    // of feeding
	capture  uint64 // number of the request for the engine's state; 0 if there was none
	asked    bool   // for what the present state waits
	late     bool   // that could not be asked yet: too many migration tokens for this target
	along    bool   // the target makes the text beside the source
}

// open has the target open the attempt, which reserves a place for it there.
func (s *standby) open() {
	if token := s.allow(s.target, wirepb.Purpose_PURPOSE_MIGRATION); token != nil {
		s.target.Standby(token.GetSecret(), s.along)
	}
}

// fetch tells the target where it gets the engine's state that the source has captured.
func (s *standby) fetch() {
	if token := s.allow(s.source, wirepb.Purpose_PURPOSE_STATE_TRANSFER); token != nil {
		s.target.Link.Send(&wirepb.Fetch{
			Session: s.target.ID, Epoch: s.target.Epoch, Addr: s.source.Link.MgmtAddr(), Token: token,
			Sequence: s.needs, TimeoutMs: uint64(s.timeout.Milliseconds()),
		})
	}
}

// allow makes the migration token that the target is to show, and gives it to the holder. Without one the handover has
// to wait.
func (s *standby) allow(holder *attempt.Attempt, purpose wirepb.Purpose) *wirepb.Token {
	token, err := s.target.Allow(holder.Link, purpose,
		s.source.Link.Worker(), s.target.Link.Worker(), s.source.Epoch, s.target.Epoch)
	if err != nil {
		s.log.Debug("planned swap waits for a token", zap.Error(err))
	}
	s.asked, s.late = err == nil, err != nil
	return token
}

// follow brings the target the tokens that came meanwhile, or finds that it has caught up.
func (s *standby) follow() (event migration.Event, ok bool) {
	length := s.target.Log.Len()
	near := length <= s.prepared+nearEnough || s.rounds >= feedMost
	switch {
	case near && length >= s.needs:
		return migration.Accepted, true
	case s.asked || length == s.prepared: // an answer is on its way, or there is nothing new
	default:
		s.rounds++
		s.feed()
	}
	return 0, false
}

// feed gives the target the tokens that it lacks, and waits for its word that it is behind them.
func (s *standby) feed() {
	s.asked = true
	s.fed = s.target.Feed(s.has())
}

// has is up to which token the target was given the stream.
func (s *standby) has() uint64 { return max(s.prepared, s.fed) }
