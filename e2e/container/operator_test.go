package container

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/identity"
)

// answer is a line that an operator's command writes with --output json.
type answer struct {
	Event   string `json:"event"`
	Code    string `json:"code"`
	Message string `json:"message"`

	// client drain
	Worker    string   `json:"worker"`
	Remaining int      `json:"remaining"`
	Moved     int      `json:"moved"`
	Failed    int      `json:"failed"`
	InTheWay  []string `json:"in_the_way"`

	// client swap
	swapStatus
	TotalMS float64 `json:"total_ms"`

	// client status
	Build       string             `json:"build"`
	Workers     []workerStatusLine `json:"workers"`
	Connections []connectionStatus `json:"connections"`
	Swaps       []swapStatus       `json:"swaps"`
}

// command is a container that runs one of the operator's commands.
type command struct {
	*node
	args []string
}

// command starts one.
func (c *cluster) command(t *testing.T, args ...string) command {
	t.Helper()
	n, err := c.start(t.Context(), spec{
		image: clientImage, name: "operator", args: args, files: material(identity.Operator, identity.Operator),
		env: env{"DIRECTOR_MGMT_ADDR": "director:61001", "OPERATOR_OUTPUT": "json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return command{n, args}
}

// ends waits for the end of the command, checks its exit code, and returns what it wrote: the last line is how it ended.
func (cmd command) ends(t *testing.T, code int) (lines []answer, last answer) {
	t.Helper()
	got := cmd.exit(t)
	stdout, stderr, err := cmd.output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stdout) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("client %v wrote %q: %v", cmd.args, line, err)
		}
		lines = append(lines, a)
	}
	event := map[bool]string{true: "done", false: "error"}[code == 0]
	if got != code || len(lines) == 0 || lines[len(lines)-1].Event != event || (stderr == "") != (code == 0) {
		t.Fatalf("client %v: exit code %d, want %d; it wrote %s%s", cmd.args, got, code, stdout, stderr)
	}
	return lines, lines[len(lines)-1]
}

// status is what client status shows.
func (c *cluster) status(t *testing.T) answer {
	t.Helper()
	_, last := c.command(t, "status").ends(t, 0)
	return last
}

// operator connects this process to the director's MGMT port, with the certificate of a role.
func (c *cluster) operator(t *testing.T, role identity.Role) *operator.Client {
	t.Helper()
	addr, err := c.director.published(t.Context(), directorStatus)
	if err != nil {
		t.Fatal(err)
	}
	op, err := operator.Dial(t.Context(), addr, operator.Options{TLS: c.source(t, role)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { op.Close() }) //nolint:errcheck // all that counts was answered
	return op
}

// on returns a command for one stream.
func (m *member) on(command ...string) []string {
	connection, stream := m.id()
	return append(command, "--connection", connection, "--stream", strconv.FormatUint(stream, 10))
}

// An operator empties a worker, sees how far that is, cannot take the last one away, and puts the first one back.
func TestDrain(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	all := c.crowd(t, 2, 4, request{prompt: "The mill", tokens: 700, seed: 20})

	lines, last := c.command(t, "drain", "worker-a").ends(t, 0)
	if last.Worker != "worker-a" || last.Moved != 4 || last.Remaining != 0 || last.Failed != 0 {
		t.Errorf("drained: %+v", last)
	}
	checkProgress(t, lines[:len(lines)-1], "worker-a", 4)
	eventually(t, "worker-a is empty", func() (bool, error) { return len(c.workerStatus(t, "worker-a").Sessions) == 0, nil })

	_, last = c.command(t, "drain", "worker-b").ends(t, 1)
	if last.Code != "no_worker" || !strings.Contains(last.Message, "worker-b is the last worker") || !strings.Contains(last.Message, "force") {
		t.Errorf("draining the last worker: %+v", last)
	}
	c.checkStatus(t, all)
	c.command(t, "undrain", "worker-a").ends(t, 0)
	c.serving(t, "worker-a")

	moved := all.at(t, "worker-b")
	_, last = c.command(t, moved.on("swap", "--to", "worker-a")...).ends(t, 0)
	if last.State != "Completed" || last.From != "worker-b" || last.To != "worker-a" || last.Kind != planned || last.Cause != requested {
		t.Errorf("swapped: %+v", last)
	}
	moved.until(t, "is on worker-a", func(events transcript) bool { return events.worker() == "worker-a" })
	all.running(t)
	for i, events := range all.survives(t) {
		var want []string
		if events.of("assigned")[0].Worker == "worker-a" {
			want = append(want, drained)
		}
		if all.members[i] == moved {
			want = append(want, requested)
		}
		if got := events.causes(); !slices.Equal(got, want) {
			t.Errorf("swaps because of %q, want %q", got, want)
		}
		onPurpose(t, events, drained, requested)
	}
}

// checkProgress checks that a drain was seen to begin, and that it only went forward.
func checkProgress(t *testing.T, lines []answer, worker string, streams int) {
	t.Helper()
	if len(lines) == 0 || lines[0].Remaining != streams {
		t.Errorf("the progress does not begin with %d streams: %+v", streams, lines)
	}
	left := streams
	for _, line := range lines {
		if line.Event != "progress" || line.Worker != worker || line.Remaining > left {
			t.Errorf("progress: %+v", lines)
		}
		left = line.Remaining
	}
}

// checkStatus holds what client status shows against what the clients of a drained cluster have.
func (c *cluster) checkStatus(t *testing.T, all *crowd) {
	t.Helper()
	status := c.status(t)
	if len(status.Workers) != 2 || !status.Workers[0].Draining || status.Workers[1].Draining || status.Workers[1].Sessions != len(all.members) {
		t.Errorf("workers: %+v", status.Workers)
	}
	shown := map[string]connectionStatus{}
	for _, connection := range status.Connections {
		shown[connection.ConnectionID] = connection
	}
	for _, m := range all.members {
		events, _, _ := m.look()
		connection := shown[events[0].ConnectionID]
		if connection.ODCID != events[0].ODCID || connection.Exporter != events[0].Exporter || len(connection.Streams) != 4 {
			t.Errorf("the client has %+v, the status %+v", events[0], connection)
		}
		for _, s := range connection.Streams {
			if s.State != "streaming" || s.Worker != "worker-b" {
				t.Errorf("a stream of a drained cluster: %+v", s)
			}
		}
	}
	table, stderr := c.table(t)
	connection, _ := all.members[0].id()
	for _, word := range []string{"worker-a   draining", "worker-b   ready", connection, "streaming"} {
		if !strings.Contains(table, word) || stderr != "" {
			t.Errorf("client status shows no %q: %s%s", word, table, stderr)
		}
	}
}

// table is what client status shows to people.
func (c *cluster) table(t *testing.T) (stdout, stderr string) {
	t.Helper()
	cmd := c.command(t, "status", "--output", "text")
	cmd.exit(t)
	stdout, stderr, err := cmd.output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stdout, stderr
}

// Where an operator has to confirm what is planned, it does not happen before, and not at all after a veto.
func TestVeto(t *testing.T) {
	t.Parallel()
	c := up(t, setup{director: env{"DIRECTOR_CONFIRM": "operator"}})
	all := c.crowd(t, 1, 1, request{prompt: "The letter", tokens: 700, seed: 30})
	stream := all.members[0]

	vetoed := c.command(t, stream.on("swap")...)
	c.waitsForConfirmation(t, stream)
	c.command(t, stream.on("veto", "--reason", "not before noon")...).ends(t, 0)
	_, last := vetoed.ends(t, 1)
	if last.State != "Aborted" || last.Reason != "not before noon" || !strings.Contains(last.Message, "not before noon") {
		t.Errorf("after the veto: %+v", last)
	}
	all.reads(t, 10)
	if events, _, _ := stream.look(); len(events.of("swapped")) != 0 {
		t.Errorf("the stream was moved in spite of the veto: %+v", events.of("swapped"))
	}

	confirmed := c.command(t, stream.on("swap")...)
	c.waitsForConfirmation(t, stream)
	c.command(t, stream.on("confirm")...).ends(t, 0)
	_, last = confirmed.ends(t, 0)
	if last.State != "Completed" || last.StateMS["WaitingConfirmation"] == 0 {
		t.Errorf("after the confirmation: %+v", last)
	}
	all.running(t)
	events := all.survives(t)[0]
	onPurpose(t, events, requested)
	if n := len(events.of("swapped")); n != 1 {
		t.Errorf("%d swaps, one was confirmed", n)
	}
}

// waitsForConfirmation waits until the director shows a stream's swap in that state, and what comes meanwhile.
func (c *cluster) waitsForConfirmation(t *testing.T, m *member) {
	t.Helper()
	op := c.operator(t, identity.Operator)
	connection, _ := m.id()
	eventually(t, "the swap waits for confirmation", func() (bool, error) {
		status, err := op.Status(t.Context())
		return err == nil && len(status.Swaps) == 1 && status.Swaps[0].ConnectionID == connection &&
			status.Swaps[0].State == "WaitingConfirmation", err
	})
	if swaps := c.status(t).Swaps; len(swaps) != 1 || swaps[0].State != "WaitingConfirmation" {
		t.Errorf("client status shows %+v", swaps)
	}
	events, _, _ := m.look()
	next := events.sequence() + 5
	m.until(t, "goes on where it is", func(events transcript) bool { return events.sequence() >= next })
}

// Only an operator operates. The images check their own certificate, so this test comes with the wrong one itself. What
// everybody may read here, the tests' clusters allow.
func TestOperatorsOnly(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	for _, role := range []identity.Role{identity.Worker, identity.Client, identity.Director, ""} {
		op := c.operator(t, role)
		for what, err := range map[string]error{
			"drain": op.Undrain(t.Context(), "worker-a"), "swap": second(op.Swap(t.Context(), "conn-1", 0, "")),
			"veto": op.Veto(t.Context(), "conn-1", 0, "no"),
		} {
			if err == nil || !strings.Contains(err.Error(), "unauthorized") {
				t.Errorf("%s with the certificate of %q: %v", what, role, err)
			}
		}
	}
	// The first few of them are told: see telemetry.From.
	eventually(t, "the director's log tells of the worker that was refused", func() (bool, error) {
		return slices.ContainsFunc(c.refusals(t), func(r refusalLine) bool {
			return r.Address != "" && r.Wanted != "" && strings.Contains(r.Reason, `a certificate of role "worker" is not an operator's`)
		}), nil
	})
}

func second[T any](_ T, err error) error { return err }

type refusalLine struct {
	Msg, Address, Role, Wanted, Reason string
}

// refusals are what the director has logged of those whom it refused.
func (c *cluster) refusals(t *testing.T) []refusalLine {
	t.Helper()
	_, stderr, err := c.director.output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found []refusalLine
	for line := range strings.Lines(stderr) {
		var r refusalLine
		if err := json.Unmarshal([]byte(line), &r); err == nil && strings.HasPrefix(r.Msg, "refused") {
			found = append(found, r)
		}
	}
	return found
}
