package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/wire"
)

type answer = func(*fakedirector.Operation) error

// result answers with a JSON text.
func result(text string) answer {
	return func(o *fakedirector.Operation) error { return o.Result(text) }
}

// done is the result of what is done at once.
var done = result(`{"message":"done"}`)

func refuse(code wire.Code, message string) answer {
	return func(*fakedirector.Operation) error { return wire.Errorf(code, "%s", message) }
}

const cluster = `{"director": "director-1", "time": "2026-01-02T03:04:05Z", "build": "v2", "waiting_streams": 1,
 "workers": [
  {"worker":"worker-a","user_addr":"10.0.0.1:62000","models":[{"name":"markov"}],"connected":true,"draining":true,"sessions":2,"capacity":1024,"version":2,"build":"v2"},
  {"worker":"worker-b","user_addr":"10.0.0.2:62000","models":[{"name":"markov"}],"connected":true,"available":true,"sessions":0,"capacity":64,"version":1,"build":"v1"},
  {"worker":"worker-c","models":[{"name":"markov"}],"connected":true,"capacity":64},
  {"worker":"worker-d","models":[{"name":"\u001b[2Jmark\tov\n"}]},
  {"worker":"worker-e","models":[{"name":"qwen","fingerprint":"vllm/0.32.1/f","continuity":"exact","class":"exact"},
    {"name":"small","fingerprint":"vllm/0.32.1/s","continuity":"verified","class":"replayable"}],
   "server":"vllm 0.32.1 at http://10.0.0.5:8000","connected":true,"reason":"server http://10.0.0.5:8000 is loading a model\u001b[2J"},
  {"worker":"worker-f","models":[{"name":"markov"}],"unreachable":"timeout: no recent network activity"}],
 "connections": [
  {"connection_id":"conn-1","client":"client","since":"2026-01-02T03:04:00Z","streams":[
   {"stream_id":1,"state":"streaming","worker":"worker-a","epoch":3,"sequence":120,"sent":119,"swaps":2,"started":"2026-01-02T03:00:00Z"},
   {"stream_id":2,"state":"waiting","epoch":1,"started":"2026-01-02T03:04:06Z"}]},
  {"connection_id":"conn-2","client":"<idle>","since":"2026-01-02T01:04:00Z","streams":[]}],
 "sessions": {"streaming":1,"moving":0,"waiting":1,"done":12,"failed":0,"cancelled":3},
 "swaps": [{"connection_id":"conn-1","stream_id":1,"kind":"planned","cause":"drain","from_worker":"worker-a","to_worker":"worker-b",
   "epoch":4,"state":"WaitingConfirmation","started":"2026-01-02T03:04:04Z","total_ms":1250.4}],
 "something_new": [1]}`

const record = `{"connection_id":"conn-1","stream_id":1,"kind":"planned","cause":"operator","from_worker":"worker-a","to_worker":"worker-b",
 "epoch":2,"cut_sequence":120,"state":"Completed","started":"2026-01-02T03:04:05Z","total_ms":35.25,"gap_ms":3.21,
 "state_ms":{"Pivoting":1.5,"Preparing":12,"Initiating":0.25,"Daydreaming":2,"TransferringState":20}}`

const aborted = `{"connection_id":"conn-1","stream_id":1,"kind":"planned","cause":"operator","from_worker":"worker-a","to_worker":"worker-b",
 "state":"Aborted","reason":"vetoed: not now","total_ms":35.25,"gap_ms":0,"state_ms":{}}`

// moving tells of progress, some of it twice, and then answers with the last report.
func moving(last string) answer {
	return func(o *fakedirector.Operation) error {
		for _, moves := range []string{
			`{"remaining":2}`, `{"remaining":2}`, `{"remaining":1,"moved":1,"failed":1}`,
		} {
			o.Progress(moves)
			time.Sleep(time.Second)
		}
		return o.Result(last)
	}
}

var (
	drained  = moving(`{"remaining":0,"moved":2,"failed":1}`)
	hindered = moving(oneLine(`{"remaining":1,"moved":1,"failed":1,"in_the_way":[
		"conn-1 stream 1: no other worker \u001b[2Jhas the engine", "conn-2 stream 4: waits for client confirm"]}`))
)

// happening tells of what happens, and breaks off for good.
func happening(o *fakedirector.Operation) error {
	for id, e := range []string{
		`"kind":"stream.opened","connection_id":"conn-1","stream_id":2,"model":"markov"`,
		`"kind":"worker.lost","worker":"worker-a","cause":"tether \u001b[2J"`,
		`"kind":"stream.moved","connection_id":"conn-1","stream_id":2,"worker":"worker-b","from_worker":"worker-a","swap":"failover","gap_ms":1.25`,
		`"kind":"events.missed","events":3`,
		`"kind":"something.new","what":{"a":[1]}`,
	} {
		o.Say(fmt.Sprintf("event: x\ndata: {\"id\":%d,\"time\":\"2026-01-02T03:04:05.6Z\",%s}\n\n", id+1, e))
	}
	return errors.New("broken off")
}

// oneLine is a JSON text as an event carries it.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }

func TestOperations(t *testing.T) {
	for _, test := range []struct {
		name   string
		args   []string
		answer answer
		code   int
	}{
		{"status", []string{"status"}, result(cluster), 0},
		{"status-expiring", []string{"status"}, result(`{"director":"director-1",
 "time":"2026-01-02T03:04:05Z","certificate":{"not_after":"2026-01-05T03:04:05Z","names":["director.connswap"]}}`), 0},
		{"status-files", []string{"status"}, result(`{"director":"director-1","keys_file":{"path":"keys.yaml","loaded":"2026-01-02T03:04:05Z"},
 "config_file":{"path":"director.yaml","loaded":"2026-01-02T03:04:05Z","error":"director.yaml:4: there is no field \"alias\""}}`), 0},
		{"status-upstream", []string{"status"}, result(`{"director":"director-1","workers":[
			{"worker":"worker-a","server":"vllm 0.32.1 at http://127.0.0.1:8000","models":[{"name":"m","class":"exact"},{"name":"n","class":"text"}]},
			{"worker":"worker-b","models":[{"name":"markov"}]}]}`), 0},
		{"status-empty", []string{"status"}, result(`{"director":"director-1"}`), 0},
		{"swap", []string{"swap", "--connection", "conn-1", "--stream", "1", "--to=worker-b"}, result(oneLine(record)), 0},
		{"swap-aborted", []string{"swap", "--connection", "conn-1"}, result(oneLine(aborted)), 1},
		{"swap-refused", []string{"swap", "--connection", "conn-9"}, refuse(wire.CodeInvalid, "there is no connection conn-9"), 1},
		{"drain", []string{"drain", "worker-a", "--timeout", "10s", "--force"}, drained, 0},
		{"drain-hindered", []string{"drain", "worker-a"}, hindered, 1},
		{"drain-refused", []string{"drain", "worker-x"}, refuse(wire.CodeInvalid, "there is no worker worker-x\x1b[2J\nclient: all is well"), 1},
		{"undrain", []string{"undrain", "worker-a"}, done, 0},
		{"events", []string{"events", "--after", "0"}, happening, 1},
		{"events-refused", []string{"events", "--kind", "x"}, refuse(wire.CodeInvalid, "there is no kind \"x\"; there are: stream.opened"), 1},
		{"rebalance", []string{"rebalance"}, drained, 0},
		{"confirm", []string{"confirm", "--connection", "conn-1", "--stream", "2"}, done, 0},
		{"veto", []string{"veto", "--connection", "conn-1", "--reason", "not now"}, done, 0},
		{"unauthorized", []string{"undrain", "worker-a"}, refuse(wire.CodeUnauthorized, `a certificate of role "client" may not do this`), 1},
	} {
		for _, output := range []string{"text", "json"} {
			t.Run(test.name+"-"+output, func(t *testing.T) {
				atTerminal(t, func(t *terminal) {
					t.operate(test.answer)
					code, stdout, stderr := t.run(append(test.args, "--output", output)...)
					if code != test.code {
						t.Errorf("exit code %d, want %d", code, test.code)
					}
					text := strings.ReplaceAll(transcript(code, stdout, stderr), os.Getenv("CONNECTION_SWAP_TLS_DIR"), "DIR")
					golden(t, filepath.Join("operation", test.name+"-"+output+".golden"), text)
				})
			})
		}
	}
}

// On a terminal the progress is one line, and gone when the result is there.
func TestProgressOnATerminal(t *testing.T) {
	for name, answer := range map[string]answer{"drain": drained, "drain-hindered": hindered} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				t.tty = true
				t.operate(answer)
				code, stdout, stderr := t.run("drain", "worker-a")
				golden(t, filepath.Join("operation", name+"-terminal.golden"), transcript(code, stdout, stderr))
			})
		})
	}
}

// What was asked for on the command line is what the director hears.
func TestOperationsAskForWhatWasGiven(t *testing.T) {
	t.Setenv("CONNECTION_SWAP_OPERATOR_OUTPUT", "json")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"status":   {[]string{"status"}, `status`},
		"swap":     {[]string{"swap", "--connection=conn-1", "--stream=2", "--to=worker-b"}, `swap {"connection_id":"conn-1","stream_id":2,"to_worker":"worker-b"}`},
		"drain":    {[]string{"drain", "--force", "worker-a", "--timeout=90s"}, `drain {"worker":"worker-a","timeout_ms":90000,"force":true}`},
		"defaults": {[]string{"drain", "worker-a"}, `drain {"worker":"worker-a","timeout_ms":60000,"force":false}`},
		"events": {
			[]string{"events", "--kind=worker.up,worker.lost", "--kind=stream.moved", "--connection=conn-1", "--stream=2", "--worker=worker-b"},
			`events connection_id=conn-1&kind=worker.up&kind=worker.lost&kind=stream.moved&stream_id=2&worker=worker-b`,
		},
		"undrain":   {[]string{"undrain", "worker-a"}, `undrain {"worker":"worker-a"}`},
		"rebalance": {[]string{"rebalance"}, `rebalance {}`},
		"confirm":   {[]string{"confirm", "--connection=conn-1"}, `confirm {"connection_id":"conn-1","stream_id":0}`},
		"veto":      {[]string{"veto", "--connection=conn-1", "--stream=3", "--reason=no"}, `veto {"connection_id":"conn-1","stream_id":3,"reason":"no"}`},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				var got string
				t.operate(func(o *fakedirector.Operation) error {
					got = o.Request
					return wire.Errorf(wire.CodeInvalid, "enough")
				})
				code, stdout, _ := t.run(test.args...)
				if got != test.want || code != 1 {
					t.Errorf("asked for %s, want %s; exit code %d", got, test.want, code)
				}
				var object struct{ Event, Code string }
				if err := json.Unmarshal([]byte(stdout), &object); err != nil || object.Event != "error" || object.Code != "invalid_request" {
					t.Errorf("wrote %s", stdout)
				}
			})
		})
	}
}
