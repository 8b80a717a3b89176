// Package routing says which worker a stream may go to, and chooses one. It is pure: it holds no lock, starts nothing,
// and knows neither links nor sessions. Package placement owns the candidates and keeps them true.
package routing

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/connswap/connswap/shared/migration"
)

// Need is what a stream needs of a worker. Streams with equal needs are interchangeable to routing.
type Need struct {
	Model       string // by name; empty for any
	Fingerprint string // of the model that the stream began with; empty for any
	Portable    bool   // another fingerprint will do, if there is none with that
	Continuity  uint32 // the least class that the model has to promise: see wirepb.Request
	API         string // that the model has to answer, if it is none that generates text; else empty
	Avoid       string // label of a worker to come back to only if there is no other; a planned handover leaves it, and never comes back
	Only        string // label of the only worker that will do; empty for any

	Kind    migration.Kind // placement sets it, from the request
	Careful bool           // placement sets it: the stream had a bad try, and goes to a worker that has proved itself if it can
}

// Candidate is a worker whose link is up, as routing sees it.
type Candidate struct {
	Label     string
	Models    []Model // that it has
	Capacity  int     // streams, of all directors together and all models
	Granted   int     // places that this director has given away there
	Foreign   int     // streams of other directors there, by the worker's last report
	Available bool    // it takes new streams, as it says itself
	Drained   bool    // an operator has taken it out of use
	Declined  bool    // it has just declined a stream: it gets none for a moment

	Failovers    int // under way to it
	Planned      int // planned handovers under way to it
	MaxHandovers int // under way to it at once

	Proven     bool     // it has served something since its link came up, or since it was last in cooldown
	Cooling    bool     // it is in cooldown: too many attempts failed before they made progress
	Trial      bool     // as many attempts as it may have at once, while others have room, have no outcome yet
	Failures   int      // attempts that failed in a row
	Unanswered int      // attempts without an outcome, begun since the last one that made progress
	Errors     float64  // fraction of the last attempts that failed, 0 to 1
	Latency    *Latency // between the tokens of a stream; nil if it is not measured

	chosen uint64 // when it was chosen last, in choices of the router
}

// Reason says why a stream cannot go to a worker, or, of several workers, why it has to wait. It is empty if it can go.
type Reason string

// Reasons, from those that only another worker can lift to those that pass by themselves. Of several workers the last
// one counts: it is that of the worker which is nearest to taking the stream.
const (
	NoWorker    Reason = "no worker is connected"
	NotAsked    Reason = "the worker that was asked for is not connected"
	OtherModel  Reason = "no connected worker has the model that was asked for"
	OtherAPI    Reason = "no connected worker answers such requests"
	LessPromise Reason = "no connected worker promises the continuity that was asked for"
	OtherEngine Reason = "no connected worker runs the engine that this stream began with"
	Leaving     Reason = "no other connected worker runs the engine that this stream began with"
	Unavailable Reason = "no worker is available"
	Full        Reason = "all workers are full"
	Limit       Reason = "other streams are being moved first"
)

var order = []Reason{NoWorker, NotAsked, OtherModel, OtherAPI, LessPromise, OtherEngine, Leaving, Unavailable, Full, Limit}

// Fit returns why a stream cannot go to a worker now, or nothing if it can. Whether it should is Rank's affair: nobody
// is refused for a suspicion alone.
func Fit(n Need, c *Candidate) Reason {
	switch {
	case n.Only != "" && n.Only != c.Label:
		return NotAsked
	case c.Model(n) == nil && n.Fingerprint != "":
		return OtherEngine
	case c.Model(n) == nil:
		return OtherModel
	case n.API != "" && !slices.Contains(c.Model(n).APIs, n.API):
		return OtherAPI
	case c.Model(n).Continuity < n.Continuity:
		return LessPromise
	case n.Kind == migration.Planned && n.Avoid == c.Label:
		return Leaving
	case !c.Available || c.Drained:
		return Unavailable
	case c.Declined || c.Granted >= c.Capacity || c.Model(n).full():
		return Full
	case !mayHandOver(n.Kind, c):
		return Limit
	}
	return ""
}

// mayHandOver reports whether one handover more may be under way to a worker. Planned ones can take long: they yield to
// failovers, and hold up none.
func mayHandOver(kind migration.Kind, c *Candidate) bool {
	switch kind {
	case migration.Failover:
		return c.Failovers < c.MaxHandovers
	case migration.Planned:
		return c.Failovers+c.Planned < c.MaxHandovers
	case migration.Placement:
	}
	return true
}

// Unschedulable returns why a stream that needs n waits, or nothing if one of the workers could take it now.
func Unschedulable(n Need, all []*Candidate) Reason {
	nearest := NoWorker
	for i := range all {
		reason := Fit(n, all[i])
		if reason == "" {
			return ""
		}
		if slices.Index(order, reason) > slices.Index(order, nearest) {
			nearest = reason
		}
	}
	if nearest == OtherEngine && n.Kind == migration.Planned {
		return Leaving // the worker that it leaves has lost its link
	}
	return nearest
}

// Rank says how gladly a stream goes to a worker that fits: lower first. The workers of one rank are equal in all but
// load.
type Rank struct {
	Class  Class
	Doubts int // failures in a row, of workers in cooldown; for careful streams also attempts without an outcome, of all
}

// Class is how sound a choice is.
type Class uint8

// Classes, from the best. A worker to avoid is better than one in cooldown: it is bad for one stream, the other for
// everybody.
const (
	Sound     Class = iota
	Reported        // full by its own report, which may be old: it will decline if it is
	Unproven        // not proven, which a careful stream avoids; or enough attempts have no outcome yet
	Foreign         // has another fingerprint than the one that the stream began with
	Avoided         // the stream has left it for a reason
	InCooling       // in cooldown
)

// Compare is negative if r is the better one.
func (r Rank) Compare(other Rank) int {
	return cmp.Or(cmp.Compare(r.Class, other.Class), cmp.Compare(r.Doubts, other.Doubts))
}

// RankOf ranks a worker that fits.
func RankOf(n Need, c *Candidate) Rank {
	var r Rank
	switch {
	case c.Cooling:
		return Rank{InCooling, c.Failures}
	case n.Avoid != "" && n.Avoid == c.Label:
		r.Class = Avoided
	case c.Model(n).foreign(n):
		r.Class = Foreign
	case c.Trial, !c.Proven && n.Careful:
		r.Class = Unproven
	case c.Granted+c.Foreign >= c.Capacity:
		r.Class = Reported
	}
	if n.Careful {
		r.Doubts = c.Failures + c.Unanswered
	}
	return r
}

// Words returns the reason for people, who know which worker was asked for.
func (r Reason) Words(n Need) string {
	if r == NotAsked {
		return fmt.Sprintf("%s is not connected", n.Only)
	}
	return string(r)
}
