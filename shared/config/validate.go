package config

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// Validate returns a *Problems with everything that is wrong, for a Director that was not made by LoadDirector.
func (d *Director) Validate() error { return validated(d.validate) }

// Validate returns a *Problems with everything that is wrong, for a Worker that was not made by LoadWorker.
func (w *Worker) Validate() error { return validated(w.validate) }

// Validate returns a *Problems with everything that is wrong, for a Client that was not made by LoadClient.
func (c *Client) Validate() error { return validated(c.validate) }

// Validate returns a *Problems with everything that is wrong, for an Operator that was not made by LoadOperator.
func (o *Operator) Validate() error { return validated(o.validate) }

func validated(validate func(*Problems)) error {
	problems := &Problems{}
	validate(problems)
	return problems.err()
}

func (d *Director) validate(p *Problems) {
	d.Common.validate(p)
	d.Peer.validate(p)
	p.listenAddr("DIRECTOR_USER_ADDR", d.UserAddr)
	p.oneOf("DIRECTOR_HTTP", d.HTTP, "auto", "tls", "plain", "off")
	if d.HTTP == "plain" && d.ClientAuth == "certificate" {
		p.add("DIRECTOR_HTTP", d.HTTP, "nobody can show a certificate in the clear, and %s=certificate wants one; give tls or off", full("DIRECTOR_CLIENT_AUTH"))
	}
	for _, origin := range d.Origins {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "") {
			p.add("DIRECTOR_HTTP_ORIGINS", origin, "no origin; give scheme and host such as https://example.org, or *")
		}
	}
	p.listenAddr("DIRECTOR_MGMT_ADDR", d.MgmtAddr)
	p.label("DIRECTOR_ID", d.ID)
	d.validateLimits(p)
	d.validateDetection(p)
	d.validateMigration(p)
}

func (d *Director) validateLimits(p *Problems) {
	p.count("DIRECTOR_MAX_CONNECTIONS", d.MaxConnections)
	p.oneOf("DIRECTOR_CLIENT_AUTH", d.ClientAuth, "none", "certificate")
	for _, name := range d.ClientNames {
		p.label("DIRECTOR_CLIENT_NAMES", name)
	}
	if len(d.ClientNames) > 0 && d.ClientAuth == "none" {
		p.add("DIRECTOR_CLIENT_NAMES", strings.Join(d.ClientNames, ","), "only with %s=certificate", full("DIRECTOR_CLIENT_AUTH"))
	}
	p.count("DIRECTOR_MAX_LABELS_PER_CERTIFICATE", d.MaxLabels)
	p.count("DIRECTOR_MAX_STREAMS", d.MaxStreams)
	p.count("DIRECTOR_MAX_SESSIONS", d.MaxSessions)
	p.budget("DIRECTOR_MAX_BYTES", d.MaxBytes)
	between(p, "DIRECTOR_MAX_PROMPT_BYTES", d.MaxPromptBytes, 1, wire.MaxPrompt)
	between(p, "DIRECTOR_MAX_BODY_BYTES", d.MaxBodyBytes, 1, wire.MaxPrompt)
	p.count("DIRECTOR_MAX_TOKENS", d.MaxTokens)
	between(p, "DIRECTOR_MAX_SESSION_BYTES", d.MaxSessionBytes, 1, wire.MaxPrefix)
	p.count("DIRECTOR_WINDOW_TOKENS", d.WindowTokens)
	p.positive("DIRECTOR_WORKER_WAIT", d.WorkerWait)
	p.positive("DIRECTOR_CLIENT_STALL", d.ClientStall)
	p.positive("DIRECTOR_CLIENT_IDLE_TIMEOUT", d.ClientIdleTimeout)
	p.notNegative("DIRECTOR_RESUME_WAIT", d.ResumeWait)
	p.notNegative("DIRECTOR_DRAIN_TIMEOUT", d.DrainTimeout)
	p.count("DIRECTOR_MAX_SWAPS_PER_MINUTE", d.MaxSwapsPerMinute)
	p.count("DIRECTOR_MAX_CONCURRENT_SWAPS", d.MaxConcurrentSwaps)
	p.oneOf("DIRECTOR_ROUTING", d.Routing, "round_robin", "least_loaded", "p2c")
	p.count("DIRECTOR_MAX_WORKER_DEATHS", d.MaxWorkerDeaths)
	p.positive("DIRECTOR_SESSION_RETENTION", d.SessionRetention)
	p.positive("DIRECTOR_HTTP_HEARTBEAT", d.HTTPHeartbeat)
}

// longestTokenTTL bounds how long a migration token that was stolen is of use.
const longestTokenTTL = 30 * time.Second

func (d *Director) validateMigration(p *Problems) {
	p.oneOf("DIRECTOR_CONFIRM", d.Confirm, "auto", "operator")
	p.positive("DIRECTOR_CONFIRM_TIMEOUT", d.ConfirmTimeout)
	p.count("DIRECTOR_MAX_SWAPS_PER_TARGET", d.MaxSwapsPerTarget)
	p.count("DIRECTOR_MAX_CONCURRENT_TRANSFERS", d.MaxTransfers)
	p.positive("DIRECTOR_TRANSFER_TIMEOUT", d.TransferTimeout)
	between(p, "DIRECTOR_REBALANCE_PACE", d.RebalancePace, 1, 1_000_000)
	between(p, "DIRECTOR_TOKEN_TTL", d.TokenTTL, time.Millisecond, longestTokenTTL)
	p.count("DIRECTOR_TOKEN_RATE", d.TokenRate)
	p.notNegative("DIRECTOR_CHECKPOINT_INTERVAL", d.CheckpointInterval)
	p.oneOf("DIRECTOR_CHECKPOINT_PLACE", d.CheckpointPlace, "director", "peer")
	p.atLeast("DIRECTOR_MAX_CHECKPOINT_BYTES", d.MaxCheckpointBytes, 0)
}

func (d *Director) validateDetection(p *Problems) {
	p.positive("DIRECTOR_LINK_KEEP_ALIVE", d.LinkKeepAlive)
	p.above("DIRECTOR_LINK_IDLE_TIMEOUT", d.LinkIdleTimeout, "DIRECTOR_LINK_KEEP_ALIVE", d.LinkKeepAlive)
	p.above("DIRECTOR_PROGRESS_TIMEOUT", d.ProgressTimeout, "DIRECTOR_LINK_KEEP_ALIVE", d.LinkKeepAlive)
	p.positive("DIRECTOR_ATTACH_TIMEOUT", d.AttachTimeout)
	p.positive("DIRECTOR_FIRST_TOKEN_TIMEOUT", d.FirstTokenTimeout)
	p.positive("DIRECTOR_TOKEN_TIMEOUT_MIN", d.TokenTimeoutMin)
	between(p, "DIRECTOR_TOKEN_TIMEOUT_FACTOR", d.TokenTimeoutFactor, 1, 1000)
}

func (w *Worker) validate(p *Problems) {
	w.Common.validate(p)
	w.Peer.validate(p)
	p.listenAddr("WORKER_USER_ADDR", w.UserAddr)
	p.listenAddr("WORKER_MGMT_ADDR", w.MgmtAddr)
	p.advertisedAddr("WORKER_ADVERTISE_USER_ADDR", w.AdvertiseUserAddr)
	p.advertisedAddr("WORKER_ADVERTISE_MGMT_ADDR", w.AdvertiseMgmtAddr)
	if len(w.Directors) == 0 {
		p.add("DIRECTOR_MGMT_ADDR", "", "no director; give a list of host:port such as localhost:61001")
	}
	for _, addr := range w.Directors {
		p.targetAddr("DIRECTOR_MGMT_ADDR", addr)
	}
	p.label("WORKER_LABEL", w.Label)
	p.count("WORKER_CAPACITY", w.Capacity)
	p.budget("WORKER_MAX_BYTES", w.MaxBytes)
	if _, err := w.Models(); err != nil {
		p.add("WORKER_ENGINE", w.Engine, "%v", err)
	}
	w.Server.validate(p, w.Engine)
	between(p, "WORKER_STATE_BYTES", w.StateBytes, 1<<10, wire.MaxState)
	p.positive("WORKER_DRAIN_TIMEOUT", w.DrainTimeout)
	p.atLeast("WORKER_MAX_SNAPSHOT_BYTES", w.MaxSnapshotBytes, 0)
	p.notNegative("WORKER_TOKEN_INTERVAL", w.TokenInterval)
	w.validateFailure(p)
}

func (w *Worker) validateFailure(p *Problems) {
	const from, to = "WORKER_FAILURE_MIN", "WORKER_FAILURE_MAX"
	p.oneOf("WORKER_FAILURE_MODE", w.FailureMode, "none", "error", "exit", "hang", "drop", "slow")
	p.notNegative(from, w.FailureMin)
	p.positive(to, w.FailureMax)
	p.positive("WORKER_RECOVERY", w.FailureRecovery)
	if w.FailureMin > w.FailureMax && !p.blames(from, to) {
		p.add(from, w.FailureMin.String(), "above %s=%q; give at most %[2]s, or raise the other", full(to), w.FailureMax)
	}
}

func (c *Client) validate(p *Problems) {
	c.Common.validate(p)
	p.targetAddr("DIRECTOR_TARGET", c.Target)
	p.atLeast("CLIENT_MAX_TOKENS", c.MaxTokens, 0)
	p.positive("CLIENT_KEEP_ALIVE", c.KeepAlive)
	p.above("CLIENT_IDLE_TIMEOUT", c.IdleTimeout, "CLIENT_KEEP_ALIVE", c.KeepAlive)
	between(p, "CLIENT_PRIORITY", c.Priority, 0, 255)
	p.oneOf("CLIENT_OUTPUT", c.Output, "text", "log", "json")
}

func (o *Operator) validate(p *Problems) {
	o.Common.validate(p)
	p.targetAddr("DIRECTOR_MGMT_ADDR", o.Director)
	p.oneOf("OPERATOR_OUTPUT", o.Output, "text", "json")
}

func (c *Common) validate(p *Problems) {
	p.oneOf("LOG_LEVEL", c.LogLevel, "debug", "info", "warn", "error")
	p.oneOf("LOG_FORMAT", c.LogFormat, "console", "json")
}

func (c *Peer) validate(p *Problems) {
	p.positive("HEARTBEAT_INTERVAL", c.HeartbeatInterval)
	p.positive("HEARTBEAT_TIMEOUT", c.HeartbeatTimeout)
	between(p, "MAX_STATE_BYTES", c.MaxStateBytes, 0, wire.MaxState)
	p.atLeast("TRANSFER_RATE", c.TransferRate, 1<<10)
	between(p, "PACKET_LOSS", c.PacketLoss, 0, 0.9)
}

// label checks a name.
func (p *Problems) label(name, value string) {
	if err := CheckName(value); err != nil {
		p.add(name, value, "%v", err)
	}
}

// CheckName says what is wrong with a name that people read in logs and that metrics are labelled with.
func CheckName(value string) error {
	const longest = 253 // as a host name
	ok := value != "" && len(value) <= longest
	for _, r := range value {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
	}
	if !ok {
		return fmt.Errorf("not a name; give 1 to %d letters, digits, dashes, dots and underscores, such as worker-a", longest)
	}
	return nil
}

func (p *Problems) oneOf(name, value string, choices ...string) {
	if !slices.Contains(choices, value) {
		last := len(choices) - 1
		p.add(name, value, "unknown; give %s or %s", strings.Join(choices[:last], ", "), choices[last])
	}
}

// count checks a number of things, at least one, which crosses the wire in 32 bits.
func (p *Problems) count(name string, value int) {
	p.atLeast(name, value, 1)
	if value > math.MaxInt32 {
		p.add(name, strconv.Itoa(value), "too high; give at most %d", math.MaxInt32)
	}
}

func (p *Problems) atLeast(name string, value, lowest int) {
	if value < lowest {
		p.add(name, strconv.Itoa(value), "too low; give at least %d", lowest)
	}
}

// leastBudget is what a process needs to be of any use.
const leastBudget = 16 << 20

func (p *Problems) budget(name string, value int) {
	if value != 0 && value < leastBudget {
		p.add(name, strconv.Itoa(value), "0 to have it found out, or at least %d (bytes)", leastBudget)
	}
}

func (p *Problems) positive(name string, value time.Duration) {
	if value <= 0 {
		p.add(name, value.String(), "not above 0; give a duration such as 1s")
	}
	p.notForEver(name, value)
}

func (p *Problems) notNegative(name string, value time.Duration) {
	if value < 0 {
		p.add(name, value.String(), "below 0; give 0 or a duration such as 1s")
	}
	p.notForEver(name, value)
}

// longestTime is as good as for ever, and sums and multiples of it stay far below what a time.Duration holds.
const longestTime = 30 * 24 * time.Hour

func (p *Problems) notForEver(name string, value time.Duration) {
	if value > longestTime {
		p.add(name, value.String(), "too long; give at most %v", longestTime)
	}
}

// above checks that one time is longer than another.
func (p *Problems) above(name string, value time.Duration, other string, limit time.Duration) {
	if value <= limit && !p.blames(name, other) {
		p.add(name, value.String(), "not above %s=%q; give at least twice that", full(other), limit)
	}
	p.notForEver(name, value)
}

// between checks a range; NaN is in none.
func between[N cmp.Ordered](p *Problems, name string, value, lowest, highest N) {
	if !(value >= lowest && value <= highest) {
		p.add(name, fmt.Sprint(value), "out of range; give a number from %v to %v", lowest, highest)
	}
}
