package migration

import (
	"errors"
	"fmt"
)

// ErrIllegal means that an event cannot happen in a state: a defect of the caller.
var ErrIllegal = errors.New("illegal step")

// next is the undisturbed way: in this state, on this event, to that state, with that action.
type next struct {
	on Event
	to State
	do []Action
}

var forward = map[State]next{
	Idle:                {Start, Initiating, []Action{Pick}},
	WaitingConfirmation: {Confirmed, Preparing, []Action{Open}},
	Preparing:           {Opened, CapturingState, []Action{Capture}},
	CapturingState:      {Captured, TransferringState, []Action{Transfer}},
	TransferringState:   {Accepted, Pivoting, []Action{Pivot}},
	Pivoting:            {Pivoted, Verifying, []Action{Verify}},
	Verifying:           {Verified, Completing, []Action{Tell}},
	Completing:          {Told, Completed, nil},
}

// Step returns the state after an event and what to do then. It has no side effects and no memory: equal
// arguments give equal results. An event that cannot happen gives ErrIllegal and changes nothing.
func Step(kind Kind, state State, event Event) (State, []Action, error) {
	if state.Final() {
		return state, nil, illegal(kind, state, event)
	}
	switch {
	case state == Initiating && event == Granted:
		if kind == Planned {
			return WaitingConfirmation, []Action{Confirm}, nil
		}
		return Preparing, []Action{Open}, nil
	case kind == Planned && state == Verifying && event == Verified:
		return Completing, []Action{ReleaseSource, Tell}, nil
	case state == Initiating:
		return disturb(kind, state, event)
	case forward[state].on == event:
		return forward[state].to, forward[state].do, nil
	case state == Idle:
		return state, nil, illegal(kind, state, event)
	}
	return disturb(kind, state, event)
}

// disturb is the way of a swap that does not come to its end. Up to its cut, which is the event Pivoted, a planned swap
// can be given up without the client knowing. Afterwards, and in a failover always, the session needs another target.
func disturb(kind Kind, state State, event Event) (State, []Action, error) {
	release := releaseTarget(state)
	sourceOwns := kind == Planned && state <= Pivoting
	switch event { //nolint:exhaustive // all others are steps forward, and illegal here
	case Cancelled:
		return Aborted, release, nil
	case TargetLost, Mismatch, TimedOut, Expired:
		if sourceOwns {
			return Aborted, release, nil
		}
		return Failed, release, nil
	case SourceLost:
		if sourceOwns {
			return Failed, release, nil
		}
	case Vetoed:
		if sourceOwns {
			return Aborted, release, nil
		}
	}
	return state, nil, illegal(kind, state, event)
}

// releaseTarget returns what to undo: before a target is granted there is none.
func releaseTarget(state State) []Action {
	if state == Initiating {
		return nil
	}
	return []Action{ReleaseTarget}
}

func illegal(kind Kind, state State, event Event) error {
	return fmt.Errorf("%w: %s in state %s of a %s", ErrIllegal, event, state, kind)
}
