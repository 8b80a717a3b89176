// Package migration decides how a session moves from one worker to another: the twelve states of a swap as a
// pure step function. It does nothing itself: the goroutine that owns the session feeds it events and carries
// out the actions that it returns.
package migration

// State is where a swap stands.
type State uint8

// The twelve states, in the order in which a swap passes them. The last three are final.
const (
	Idle                State = iota
	Initiating                // waiting for a target
	WaitingConfirmation       // planned swaps only: the target reserves, an operator may veto
	Preparing                 // opening the attempt on the target
	CapturingState            // taking the prefix, or a snapshot, at sequence n
	TransferringState         // the target takes it over
	Pivoting                  // about to cut at n: from then on the source is fenced, the target owns n+1
	Verifying                 // the first token has sequence n+1, the digests are equal
	Completing                // the client is told, the source released
	Completed
	Aborted // given up while the source still owned the session, or because nobody wants it any more
	Failed  // the target could not take over; the session needs another
)

var stateNames = [...]string{
	"Idle", "Initiating", "WaitingConfirmation", "Preparing", "CapturingState", "TransferringState",
	"Pivoting", "Verifying", "Completing", "Completed", "Aborted", "Failed",
}

func (s State) String() string { return stateNames[s] }

// Final reports whether nothing can happen after s.
func (s State) Final() bool { return s >= Completed }

// Kind says why a session is given to a worker.
type Kind uint8

// Kinds of swaps. A placement is the first assignment: a swap from nobody.
const (
	Placement Kind = iota
	Failover
	Planned
)

var kindNames = [...]string{"placement", "failover", "planned"}

func (k Kind) String() string { return kindNames[k] }

// Event is something that happened to a swap.
type Event uint8

// Events, in the order in which an undisturbed swap sees them.
const (
	Start      Event = iota
	Granted          // a target has reserved a place
	Confirmed        // planned swaps only
	Opened           // the attempt is open
	Captured         // the state is captured
	Accepted         // the target has the state and is ready at n+1
	Pivoted          // the target owns the session
	Verified         // sequence and digest are right
	Told             // the client knows
	TargetLost       // the target died, refused, or broke the protocol
	Mismatch         // sequence or digest is wrong
	SourceLost       // planned swaps only: the source died while it still owned the session
	TimedOut         // the state took longer than it may
	Cancelled        // nobody wants the session any more
	Expired          // the migration token was too old when it was used
	Vetoed           // planned swaps only: an operator does not want it
)

var eventNames = [...]string{
	"Start", "Granted", "Confirmed", "Opened", "Captured", "Accepted", "Pivoted", "Verified", "Told",
	"TargetLost", "Mismatch", "SourceLost", "TimedOut", "Cancelled", "Expired", "Vetoed",
}

func (e Event) String() string { return eventNames[e] }

// Action is what the owner has to do next.
type Action uint8

// Actions. Each but the last two is answered by an event.
const (
	Pick     Action = iota // find a target: Granted
	Confirm                // reserve, ask: Confirmed or Vetoed
	Open                   // open the attempt: Opened
	Capture                // take the prefix or a snapshot: Captured
	Transfer               // give it to the target: Accepted
	Pivot                  // fence the source, hand over: Pivoted
	Verify                 // compare the first token: Verified or Mismatch
	Tell                   // tell the client: Told
	ReleaseSource
	ReleaseTarget
)

var actionNames = [...]string{
	"pick", "confirm", "open", "capture", "transfer", "pivot", "verify", "tell", "release source", "release target",
}

func (a Action) String() string { return actionNames[a] }
