package routing_test

import (
	"math/rand/v2"
	"testing"

	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/migration"
)

// ready is a worker with room that runs engine x, changed as the test says.
func ready(change ...func(*routing.Candidate)) *routing.Candidate {
	c := &routing.Candidate{Label: "a", Models: of("x"), Capacity: 2, Available: true, Proven: true, MaxHandovers: 2}
	for _, do := range change {
		do(c)
	}
	return c
}

// of returns the models of a worker that has one, called m.
func of(fingerprint string) []routing.Model {
	return []routing.Model{{Name: "m", Fingerprint: fingerprint}}
}

func TestFit(t *testing.T) {
	type c = routing.Candidate
	two := func(c *c) {
		c.Models = []routing.Model{{Name: "m", Capacity: 1, Granted: 1}, {Name: "n", Capacity: 2, Granted: 1}}
	}
	placement, failover, planned := routing.Need{}, routing.Need{Kind: migration.Failover}, routing.Need{Kind: migration.Planned}
	for name, test := range map[string]struct {
		need routing.Need
		c    *c
		want routing.Reason
	}{
		"nothing in particular":                 {placement, ready(), ""},
		"its engine":                            {routing.Need{Fingerprint: "x"}, ready(), ""},
		"the model":                             {routing.Need{Model: "m"}, ready(), ""},
		"the model, of its engine":              {routing.Need{Model: "m", Fingerprint: "x"}, ready(), ""},
		"another model":                         {routing.Need{Model: "n"}, ready(), routing.OtherModel},
		"the model, of another engine":          {routing.Need{Model: "m", Fingerprint: "y"}, ready(), routing.OtherEngine},
		"its engine under another name":         {routing.Need{Model: "n", Fingerprint: "x"}, ready(), routing.OtherEngine},
		"one of its models":                     {routing.Need{Model: "n"}, ready(two), ""},
		"a model that is full":                  {routing.Need{Model: "m"}, ready(two), routing.Full},
		"any model, and the first is full":      {routing.Need{}, ready(two), routing.Full},
		"promises enough":                       {routing.Need{Continuity: 2}, ready(func(c *c) { c.Models[0].Continuity = 2 }), ""},
		"promises less":                         {routing.Need{Continuity: 3}, ready(func(c *c) { c.Models[0].Continuity = 2 }), routing.LessPromise},
		"answers that API":                      {routing.Need{API: "embeddings"}, ready(func(c *c) { c.Models[0].APIs = []string{"score", "embeddings"} }), ""},
		"answers another API":                   {routing.Need{API: "embeddings"}, ready(func(c *c) { c.Models[0].APIs = []string{"score"} }), routing.OtherAPI},
		"another engine, and that will do":      {routing.Need{Model: "m", Fingerprint: "y", Portable: true}, ready(), ""},
		"another engine's other model":          {routing.Need{Model: "n", Fingerprint: "y", Portable: true}, ready(), routing.OtherEngine},
		"another engine":                        {routing.Need{Fingerprint: "y"}, ready(), routing.OtherEngine},
		"the one that was asked for":            {routing.Need{Only: "a"}, ready(), ""},
		"not the one that was asked for":        {routing.Need{Only: "b"}, ready(), routing.NotAsked},
		"asked for, another engine":             {routing.Need{Only: "a", Fingerprint: "y"}, ready(), routing.OtherEngine},
		"one to avoid, if need be":              {routing.Need{Avoid: "a"}, ready(), ""},
		"a planned handover never stays":        {routing.Need{Avoid: "a", Kind: migration.Planned}, ready(), routing.Leaving},
		"not available":                         {placement, ready(func(c *c) { c.Available = false }), routing.Unavailable},
		"drained":                               {placement, ready(func(c *c) { c.Drained = true }), routing.Unavailable},
		"drained and full":                      {placement, ready(func(c *c) { c.Drained, c.Granted = true, 2 }), routing.Unavailable},
		"the last place":                        {placement, ready(func(c *c) { c.Granted = 1 }), ""},
		"full":                                  {placement, ready(func(c *c) { c.Granted = 2 }), routing.Full},
		"full by its own report":                {placement, ready(func(c *c) { c.Foreign = 2 }), ""},
		"has just declined":                     {placement, ready(func(c *c) { c.Declined = true }), routing.Full},
		"in cooldown":                           {placement, ready(func(c *c) { c.Cooling, c.Proven = true, false }), ""},
		"failovers under way, a new stream":     {placement, ready(func(c *c) { c.Failovers, c.Planned = 2, 2 }), ""},
		"failovers under way":                   {failover, ready(func(c *c) { c.Failovers = 2 }), routing.Limit},
		"planned handovers hold up no failover": {failover, ready(func(c *c) { c.Planned = 2 }), ""},
		"a planned handover yields to both":     {planned, ready(func(c *c) { c.Failovers, c.Planned = 1, 1 }), routing.Limit},
	} {
		if got := routing.Fit(test.need, test.c); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestUnschedulable(t *testing.T) {
	type c = routing.Candidate
	x, planned := routing.Need{Fingerprint: "x"}, routing.Need{Fingerprint: "x", Kind: migration.Planned, Avoid: "a"}
	otherEngine, full := ready(func(c *c) { c.Models = of("y") }), ready(func(c *c) { c.Granted = 2 })
	gone, busy := ready(func(c *c) { c.Available = false }), ready(func(c *c) { c.Label, c.Failovers = "b", 2 })
	for name, test := range map[string]struct {
		need routing.Need
		all  []*c
		want string
	}{
		"nobody":                  {x, nil, "no worker is connected"},
		"another engine":          {x, []*c{otherEngine}, "no connected worker runs the engine that this stream began with"},
		"nowhere else":            {planned, []*c{full, otherEngine}, "no other connected worker runs the engine that this stream began with"},
		"the source is lost":      {planned, []*c{otherEngine}, "no other connected worker runs the engine that this stream began with"},
		"not available":           {x, []*c{gone, otherEngine}, "no worker is available"},
		"full":                    {x, []*c{full, gone, otherEngine}, "all workers are full"},
		"held up by other moves":  {planned, []*c{full, gone, busy, otherEngine}, "other streams are being moved first"},
		"the one that was wanted": {routing.Need{Only: "z"}, []*c{full}, "z is not connected"},
		"one fits":                {x, []*c{full, ready()}, ""},
	} {
		if got := routing.Unschedulable(test.need, test.all).Words(test.need); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// TestRankOf has each worker preferred to the next one.
func TestRankOf(t *testing.T) {
	type c = routing.Candidate
	fresh := func(c *c) { c.Proven = false }
	for name, test := range map[string]struct {
		need routing.Need
		best []*c
	}{
		"any": {routing.Need{Avoid: "b"}, []*c{
			ready(),
			ready(func(c *c) { c.Foreign = 2 }),
			ready(func(c *c) { c.Trial = true }),
			ready(func(c *c) { c.Label = "b" }),
			ready(fresh, func(c *c) { c.Cooling, c.Failures = true, 1 }),
			ready(fresh, func(c *c) { c.Cooling, c.Failures = true, 7 }),
		}},
		"careful": {routing.Need{Careful: true}, []*c{
			ready(), ready(func(c *c) { c.Unanswered = 1 }), ready(func(c *c) { c.Failures, c.Unanswered = 2, 1 }),
			ready(fresh), ready(fresh, func(c *c) { c.Cooling = true }),
		}},
		"not careful": {routing.Need{}, []*c{ready(fresh), ready(func(c *c) { c.Foreign = 9 })}},
		"portable": {routing.Need{Fingerprint: "x", Portable: true, Avoid: "b"}, []*c{
			ready(), ready(func(c *c) { c.Trial = true }), ready(func(c *c) { c.Models = of("y") }), ready(func(c *c) { c.Label = "b" }),
		}},
	} {
		for i := range test.best[1:] {
			if routing.RankOf(test.need, test.best[i]).Compare(routing.RankOf(test.need, test.best[i+1])) >= 0 {
				t.Errorf("%s: number %d is not better than the next one", name, i)
			}
		}
	}
	if a, b := routing.RankOf(routing.Need{}, ready()), routing.RankOf(routing.Need{}, ready(fresh)); a != b {
		t.Errorf("a new worker is %v, not %v: it would never get its first stream", b, a)
	}
}

// TestFitAndPoliciesAgree draws needs and workers at random: a policy chooses somebody if and only if somebody fits,
// and nobody who fits has a better rank; who waits is told a reason if and only if nobody fits.
func TestFitAndPoliciesAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	maybe := func() bool { return r.IntN(2) == 0 }
	models := func() []routing.Model {
		return []routing.Model{
			{Name: "m", Fingerprint: pick("x", "y"), Capacity: r.IntN(3), Granted: r.IntN(3)}, {Name: pick("n", "o"), Fingerprint: pick("x", "y")},
		}
	}
	chosen := 0
	for _, name := range routing.Policies {
		router, err := routing.New(name, rand.NewPCG(3, 4))
		if err != nil {
			t.Fatal(err)
		}
		for range 20_000 {
			n := routing.Need{
				Model: pick("", "", "m", "n"), Fingerprint: pick("", "x", "y"), Avoid: pick("", "a", "b"), Only: pick("", "", "", "c"), Kind: migration.Kind(r.IntN(3)), Careful: maybe(),
			}
			all := make([]*routing.Candidate, r.IntN(6))
			for i := range all {
				all[i] = &routing.Candidate{
					Label: pick("a", "b", "c"), Models: models(), Capacity: 1 + r.IntN(3), Granted: r.IntN(4), Foreign: r.IntN(4),
					Available: maybe(), Drained: r.IntN(4) == 0, Declined: r.IntN(4) == 0, Failovers: r.IntN(3), Planned: r.IntN(3), MaxHandovers: 2,
					Proven: maybe(), Cooling: maybe(), Trial: maybe(), Failures: r.IntN(3), Unanswered: r.IntN(3), Errors: r.Float64(),
				}
			}
			i := router.Pick(n, all)
			if reason := routing.Unschedulable(n, all); (reason == "") != (i >= 0) {
				t.Fatalf("%s: chose %d, though %q", name, i, reason)
			}
			if i < 0 {
				continue
			}
			chosen++
			for j, c := range all {
				if fits := routing.Fit(n, c) == ""; i == j && !fits || fits && routing.RankOf(n, c).Compare(routing.RankOf(n, all[i])) < 0 {
					t.Fatalf("%s: for %+v chose %+v before %+v", name, n, all[i], c)
				}
			}
		}
	}
	if chosen < 5000 {
		t.Errorf("only %d choices: the draw is too narrow to say anything", chosen)
	}
}
