package cli_test

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// survivor is a stream that goes through all that can happen, and is completed.
func survivor(s *fakedirector.Stream) {
	s.Assign()
	for _, text := range []string{"Once", " upon", " a", " time"} {
		s.Say(1, text)
		time.Sleep(100 * time.Millisecond)
	}
	s.Send(&wirepb.Waiting{Reason: "no worker is available", TimeoutMs: 30_000})
	time.Sleep(200 * time.Millisecond)
	s.Swap()
	s.Say(2, " \"there\"", " was\n", " <rest>")
	s.Send(s.Finish())
}

// returned is a stream whose connection is lost, and which goes on over another one.
func returned(s *fakedirector.Stream) {
	s.Assign()
	for _, text := range []string{"Once", " upon", " a", " time"} {
		s.Say(1, text)
		time.Sleep(100 * time.Millisecond)
	}
	s.Break(wire.QUICLost)
	time.Sleep(50 * time.Millisecond)
	s.Say(1, " there", " was")
	s.Send(s.Finish())
}

// victim is a stream that cannot be completed.
func victim(s *fakedirector.Stream) {
	s.Assign()
	s.Say(1, "Once")
	s.Send(wire.Errorf(wire.CodeNoWorker, "no worker took the stream within 30s").Proto())
}

func TestOutputs(t *testing.T) {
	for _, test := range []struct {
		name string
		play func(*fakedirector.Stream)
		args []string
		tty  bool
		code int
	}{
		{"text", survivor, nil, false, 0},
		{"text-terminal", survivor, nil, true, 0},
		{"text-error", victim, nil, false, 1},
		{"text-resumed", returned, nil, false, 0},
		{"text-resumed-terminal", returned, nil, true, 0},
		{"log-resumed", returned, []string{"--output", "log"}, false, 0},
		{"json-resumed", returned, []string{"--output", "json"}, false, 0},
		{"log", survivor, []string{"--output", "log"}, false, 0},
		{"log-error", victim, []string{"--output=log"}, false, 1},
		{"json", survivor, []string{"--output", "json"}, false, 0},
		{"json-error", victim, []string{"--output", "json"}, false, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				t.tty = test.tty
				t.serve(test.play)
				code, stdout, stderr := t.run(append([]string{"generate", "Hello"}, test.args...)...)
				if code != test.code {
					t.Errorf("exit code %d, want %d", code, test.code)
				}
				golden(t, test.name+".golden", transcript(code, stdout, stderr))
			})
		})
	}
}

func TestLogForMachines(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.Setenv("CONNECTION_SWAP_LOG_FORMAT", "json")
		t.serve(survivor)
		code, stdout, stderr := t.run("generate", "--output", "log")
		golden(t, "log-machines.golden", transcript(code, stdout, stderr))
	})
}

func TestJSONTimesAreRFC3339(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.serve(survivor)
		_, stdout, _ := t.run("generate", "--output", "json")
		for line := range strings.Lines(stdout) {
			var object struct{ Time string }
			if err := json.Unmarshal([]byte(line), &object); err != nil {
				t.Fatal(err)
			}
			if _, err := time.Parse(time.RFC3339Nano, object.Time); err != nil {
				t.Error(err)
			}
		}
	})
}

// A director must not be able to steer a terminal.
func TestTerminalGetsNoControlCharacters(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.tty = true
		t.serve(func(s *fakedirector.Stream) {
			s.Send(&wirepb.Assigned{Worker: "a\x1b[31m", Epoch: 1})
			s.Say(1, "be\x1b[2Jep\a \u009b31m ü", "\xc3", "\xbc\n\tend")
			s.Send(s.Finish())
		})
		_, stdout, stderr := t.run("generate")
		if want := "be[2Jep 31m üü\n\tend\n"; stdout != want {
			t.Errorf("got %q, want %q", stdout, want)
		}
		if strings.Contains(stderr, "\x1b") {
			t.Errorf("notes are %q", stderr)
		}
	})
}

var (
	clock    = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}`)
	timeJSON = regexp.MustCompile(`"time":"[^"]*"`)
	hexadec  = regexp.MustCompile(`((?:odcid|exporter|ODCID)\W{1,3})([0-9a-f]{8,})`)
	millis   = regexp.MustCompile(`(_ms"?[:=])([0-9.]+)`)
)

// transcript is what a command did, without what differs from run to run: times, and the values that prove the
// connection. Equal values keep equal names.
func transcript(code int, stdout, stderr string) string {
	text := fmt.Sprintf("%s--- stderr\n%s--- exit %d\n", stdout, stderr, code)
	text = clock.ReplaceAllString(text, "15:04:05.000")
	text = timeJSON.ReplaceAllString(text, `"time":"…"`)
	seen := map[string]int{}
	text = hexadec.ReplaceAllStringFunc(text, func(match string) string {
		parts := hexadec.FindStringSubmatch(match)
		if _, ok := seen[parts[2]]; !ok {
			seen[parts[2]] = len(seen) + 1
		}
		return fmt.Sprintf("%sVALUE-%d", parts[1], seen[parts[2]])
	})
	return millis.ReplaceAllStringFunc(text, func(match string) string {
		parts := millis.FindStringSubmatch(match)
		value, _ := strconv.ParseFloat(parts[2], 64)
		return parts[1] + strconv.Itoa(int(math.Round(value)))
	})
}
