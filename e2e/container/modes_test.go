package container

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Failures that do not show themselves are told apart. SIGUSR1 brings them about at the right moment.
func TestSilentFailures(t *testing.T) {
	for mode, cause := range map[string]string{"hang": hangs, "drop": unreachable, "slow": stuck} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := up(t, setup{workers: env{
				"WORKER_FAILURE_MODE": mode, "WORKER_FAILURE_MIN": "1h", "WORKER_FAILURE_MAX": "1h", "WORKER_RECOVERY": "10s",
				// 20 times that is longer than a stream may be silent, even after one token came just in time, which widens
				// the deadline to 2.1 s, and by the clock of a director that is starved half of the time.
				"WORKER_TOKEN_INTERVAL": "240ms",
			}})
			cl := c.generate(t, story)
			victim := cl.reads(t, 20)
			c.workers[victim].signal(t, "USR1")
			cl.swapped(t, 1)
			c.serving(t, victim) // it recovers
			once(t, c.survives(t, cl), victim, cause)
		})
	}
}

// logLine is a line of a log in JSON.
type logLine struct {
	Time time.Time `json:"time"`
	Msg  string    `json:"msg"`
}

// log returns what a node has logged with one of the messages.
func (n *node) log(t *testing.T, messages ...string) []logLine {
	t.Helper()
	_, stderr, err := n.output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found []logLine
	for line := range strings.Lines(stderr) {
		var entry logLine
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%s logged %q: %v", n.name, line, err)
		}
		for _, message := range messages {
			if strings.HasPrefix(entry.Msg, message) {
				found = append(found, entry)
			}
		}
	}
	return found
}

// Failures come when the variables say: between MIN and MAX after the start or the last recovery, for as long as
// RECOVERY.
func TestTunedFailures(t *testing.T) {
	t.Parallel()
	const (
		earliest, latest, recovery = 2 * time.Second, 4 * time.Second, time.Second
		late                       = 1500 * time.Millisecond // what a busy machine may add
		started, failed, recovered = "worker started", "simulating failure", "recovered from"
	)
	c := up(t, setup{workers: env{
		"WORKER_FAILURE_MODE": "error", "WORKER_FAILURE_MIN": earliest.String(), "WORKER_FAILURE_MAX": latest.String(),
		"WORKER_RECOVERY": recovery.String(),
	}})
	cl := c.generate(t, story)
	for name, n := range c.workers {
		eventually(t, name+" has failed four times", func() (bool, error) { return len(n.log(t, failed)) >= 4, nil })
		lines := n.log(t, started, failed, recovered)
		shortest, longest := time.Hour, time.Duration(0)
		for i, line := range lines[1:] {
			after := line.Time.Sub(lines[i].Time)
			lower, upper := recovery, recovery
			if strings.HasPrefix(line.Msg, failed) {
				lower, upper = earliest, latest
				shortest, longest = min(shortest, after), max(longest, after)
			}
			if after < lower || after > upper+late {
				t.Errorf("%s: %q %v after %q, want %v to %v", name, line.Msg, after, lines[i].Msg, lower, upper)
			}
		}
		if longest-shortest < 10*time.Millisecond {
			t.Errorf("%s fails at regular times: %v to %v", name, shortest, longest)
		}
	}
	if events := c.survives(t, cl); len(events.of("swapped")) < 2 {
		t.Errorf("%d swaps in a stream of ten seconds", len(events.of("swapped")))
	}
}

// A client that is interrupted says so, and the work for it ends at once.
func TestCancelledClient(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, request{prompt: "For ever", tokens: 100000, seed: 1})
	name := cl.reads(t, 10)
	if status := c.workerStatus(t, name); len(status.Sessions) != 1 || status.Cancels != 0 {
		t.Errorf("before: %+v", status)
	}
	cl.signal(t, "INT")
	if code := cl.exit(t); code != 130 {
		t.Errorf("exit code %d", code)
	}
	eventually(t, "the director has let go of the connection", func() (bool, error) {
		open, err := c.witness.connections(t.Context())
		return len(open) == 0, err
	})
	eventually(t, name+" has let go of the session", func() (bool, error) {
		return len(c.workerStatus(t, name).Sessions) == 0, nil
	})
	stdout, stderr, err := cl.node.output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events, err := parse([]byte(stdout))
	if err != nil {
		t.Fatal(err)
	}
	if last := events[len(events)-1]; last.Event != "error" || last.Code != "cancelled" || stderr != "client: cancelled\n" {
		t.Errorf("the client ends with %+v and says %q", last, stderr)
	}
	// Had it had to find out by itself that the client was gone, it would have made hundreds of tokens meanwhile.
	status := c.workerStatus(t, name)
	if status.Cancels != 1 || status.Tokens > events.sequence()+50 {
		t.Errorf("the client read %d tokens; afterwards %+v", events.sequence(), status)
	}
	c.used(t, name)
}
