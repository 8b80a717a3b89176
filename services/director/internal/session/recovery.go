package session

import (
	"time"

	"github.com/connswap/connswap/services/director/internal/attempt"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Recovering is how far a worker's engine is on its way to where the stream is: at of a number of its own.
type Recovering struct {
	Worker string `json:"worker"`
	At     uint64 `json:"at"`
	Of     uint64 `json:"of"`
}

// progressing acts on a worker's word how far its engine is on its way to where the stream is: it has time, and who waits
// for the stream is told.
func (a *assignment) progressing(e attempt.Progressing) {
	m := e.TakeProgress()
	if m == nil || !a.targets(e.Attempt) || !a.handover.Progressing(m.GetAt(), m.GetOf()) {
		return
	}
	worker := e.Link.Worker()
	a.view.recovers(&Recovering{worker, m.GetAt(), m.GetOf()})
	if !a.sourceServes() && (a.recoveryTold == 0 || a.deps.Clock.Since(a.recoveryTold) >= recoveryEvery) {
		a.recoveryTold = a.deps.Clock.Now()
		a.stream.Log.Mark(&wirepb.Recovering{Worker: worker, At: m.GetAt(), Of: m.GetOf()})
		a.stream.Leg.Push()
	}
}

// recoveryEvery is how often at most a client is told how far the next worker is.
const recoveryEvery = time.Second
