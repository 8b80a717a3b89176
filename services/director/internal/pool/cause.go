package pool

// Cause says why a worker was lost for its sessions.
type Cause string

// Causes, by the signal that was first.
const (
	CauseReported Cause = "worker reported failure"
	CauseClosed   Cause = "worker closed the link"
	CauseTether   Cause = "worker process died (tether closed)"
	CauseRefused  Cause = "worker process died (connection refused)"
	CauseIdle     Cause = "worker unreachable (no packets)"
	CauseProgress Cause = "worker hangs (no progress)"
	CauseStuck    Cause = "stream stuck (no token)"
	CauseEngine   Cause = "engine failed"
	CauseProtocol Cause = "worker broke the protocol"
	CauseDiverged Cause = "worker's text diverged"
	CauseReplaced Cause = "a newer instance of the worker registered"
	CauseBroken   Cause = "link broke"
	CauseShutdown Cause = "director shuts down"
	CauseAttach   Cause = "worker did not take the stream in time"
	CauseDeclined Cause = "worker declined the stream"
)

// Deadly reports whether a request that is served when this happens may be what killed the worker. A worker
// that says it failed, or leaves, was not killed by a request.
func (c Cause) Deadly() bool {
	switch c {
	case CauseTether, CauseRefused, CauseIdle, CauseProgress, CauseEngine, CauseProtocol, CauseDiverged, CauseBroken:
		return true
	case CauseReported, CauseClosed, CauseAttach, CauseStuck, CauseReplaced, CauseShutdown, CauseDeclined:
		return false
	}
	return true
}
