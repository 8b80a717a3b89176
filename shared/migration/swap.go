package migration

import "time"

// Swap is one swap under way, or over. Its owner is the goroutine that owns the session.
type Swap struct {
	Kind   Kind
	Cause  string // why the source was left; empty for a placement
	From   string // worker label; empty for a placement
	To     string // worker label; empty until one is granted
	Epoch  uint64 // of the target's attempt
	Cut    uint64 // n: the last token of the source
	Reason string // why it ended, if not in Completed

	Gap time.Duration // between the last token of the source and the first of the target, less the usual interval

	state   State
	entered time.Time
	started time.Time
	spent   [Failed + 1]time.Duration
}

// NewSwap returns a swap in Idle.
func NewSwap(kind Kind, from, cause string, now time.Time) *Swap {
	return &Swap{Kind: kind, From: from, Cause: cause, entered: now, started: now}
}

// Apply steps the swap and accounts for the time that it spent in the state it leaves.
func (s *Swap) Apply(event Event, now time.Time) ([]Action, error) {
	to, actions, err := Step(s.Kind, s.state, event)
	if err != nil {
		return nil, err
	}
	s.spent[s.state] += now.Sub(s.entered)
	s.state, s.entered = to, now
	return actions, nil
}

// State returns where the swap stands.
func (s *Swap) State() State { return s.state }

// Record is a swap as it is shown to people and programs.
type Record struct {
	ConnectionID string             `json:"connection_id"`
	StreamID     uint64             `json:"stream_id"`
	Kind         string             `json:"kind"`
	Cause        string             `json:"cause"`
	From         string             `json:"from_worker"`
	To           string             `json:"to_worker"`
	Epoch        uint64             `json:"epoch"`
	Cut          uint64             `json:"cut_sequence"`
	State        string             `json:"state"`
	Reason       string             `json:"reason,omitempty"`
	Started      time.Time          `json:"started"`
	TotalMS      float64            `json:"total_ms"`
	GapMS        float64            `json:"gap_ms"`   // between two tokens, beyond the usual; as the director saw it
	StateMS      map[string]float64 `json:"state_ms"` // time spent in each state that it passed
}

// Record returns the swap as it stands.
func (s *Swap) Record(now time.Time) Record {
	r := Record{
		Kind: s.Kind.String(), Cause: s.Cause, From: s.From, To: s.To, Epoch: s.Epoch, Cut: s.Cut,
		State: s.state.String(), Reason: s.Reason, Started: s.started, StateMS: map[string]float64{},
	}
	end := now
	if s.state.Final() {
		end = s.entered
	}
	r.GapMS = milliseconds(s.Gap)
	r.TotalMS = milliseconds(end.Sub(s.started))
	for state, d := range s.spent {
		if d > 0 {
			r.StateMS[State(state).String()] = milliseconds(d)
		}
	}
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
