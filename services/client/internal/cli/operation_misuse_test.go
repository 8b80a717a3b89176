package cli_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/connswap/connswap/shared/config"
)

func TestMisuseOfOperations(t *testing.T) {
	for name, test := range map[string]struct {
		environ map[string]string
		args    []string
		want    []string // a line each
	}{
		"no worker":       {nil, []string{"drain"}, []string{"client: 0 arguments, one is needed: the name of a worker, as client status shows it (see client drain --help)"}},
		"two workers":     {nil, []string{"undrain", "a", "b"}, []string{"client: 2 arguments, one is needed"}},
		"an argument":     {nil, []string{"swap", "conn-1"}, []string{`client: unexpected argument "conn-1", there is none (see client swap --help)`}},
		"unknown flag":    {nil, []string{"status", "--force"}, []string{"client: unknown flag: --force (see client status --help)"}},
		"timeout":         {nil, []string{"drain", "a", "--timeout", "60"}, []string{"missing unit"}},
		"no time":         {nil, []string{"drain", "a", "--timeout", "0s"}, []string{`client: --timeout="0s": not above 0; give a duration such as 60s`}},
		"no such stream":  {nil, []string{"swap", "--connection", "conn-1", "--stream", "-1"}, []string{"--stream"}},
		"no event":        {nil, []string{"events", "--after", "x"}, []string{`client: --after="x": not the id of an event; give a number, or 0`}},
		"no connection":   {nil, []string{"veto"}, []string{`client: --connection="": missing; give the id of a connection`}},
		"no such output":  {nil, []string{"status", "--output", "log"}, []string{`client: --output="log": unknown; give text or json`}},
		"several outputs": {map[string]string{"OPERATOR_OUTPUT": "xml"}, []string{"status"}, []string{`CONNECTION_SWAP_OPERATOR_OUTPUT="xml"`}},
		"names": {
			nil,
			[]string{"swap", "--connection", "conn 1", "--to", "../b"},
			[]string{`client: --connection="conn 1": not a name`, `client: --to="../b": not a name`},
		},
		"all at once": {
			map[string]string{"OPERATOR_OUTPUTT": "text", "DIRECTOR_MGMT_ADDR": ":61001", "TLS_DIR": "/nowhere", "LOG_LEVEL": "loud"},
			[]string{"drain", "a b", "--timeout", "-1s", "--output", "yaml"},
			[]string{
				"CONNECTION_SWAP_OPERATOR_OUTPUTT=", "CONNECTION_SWAP_LOG_LEVEL=", "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR=",
				"--output=", "WORKER=", "--timeout=", "CONNECTION_SWAP_TLS_DIR=",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				for name, value := range test.environ {
					t.Setenv(config.Prefix+"_"+name, value)
				}
				code, stdout, stderr := t.run(test.args...)
				if code != 2 || stdout != "" {
					t.Errorf("exit code %d, stdout %q", code, stdout)
				}
				lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
				if len(lines) != len(test.want) {
					t.Fatalf("said\n%s", stderr)
				}
				for i, want := range test.want {
					if !strings.Contains(lines[i], want) {
						t.Errorf("said %s\nwant %s", lines[i], want)
					}
				}
			})
		})
	}
}

// An operator needs a certificate, and one of an operator.
func TestOperatorsCertificate(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(dir string) error
		want  []string
	}{
		"none": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "operator.pem")), os.Remove(filepath.Join(dir, "operator-key.pem")))
		}, []string{"operator.pem is missing; run make certs", "operator-key.pem is missing; run make certs"}},
		"a client's": {func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "client.pem"), filepath.Join(dir, "operator.pem")),
				os.Rename(filepath.Join(dir, "client-key.pem"), filepath.Join(dir, "operator-key.pem")))
		}, []string{"operator.pem is a certificate for"}},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				if err := test.spoil(os.Getenv("CONNECTION_SWAP_TLS_DIR")); err != nil {
					t.Fatal(err)
				}
				code, _, stderr := t.run("status")
				if code != 2 || strings.Count(stderr, "\n") != len(test.want) {
					t.Errorf("exit code %d: %s", code, stderr)
				}
				for _, want := range test.want {
					if !strings.Contains(stderr, want) {
						t.Errorf("said %snot %q", stderr, want)
					}
				}
			})
		})
	}
}

func TestHelpOfOperations(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.Setenv("CONNECTION_SWAP_OPERATOR_OUTPUT", "xml") // does not keep anyone from asking
		for name, flags := range map[string][]string{
			"status": nil, "swap": {"--connection id", "--stream number", "--to worker"},
			"drain WORKER": {"--timeout duration", "(default 1m0s)", "--force"}, "undrain WORKER": nil, "rebalance": nil,
			"confirm": {"--connection id", "--stream number"}, "veto": {"--connection id", "--stream number", "--reason text"},
		} {
			wanted := append([]string{"Usage:\n  client " + name + " [flags]\n", "--output string", `(default "text")`, "Exit codes:"}, flags...)
			for _, v := range config.Variables(config.Operator{}) {
				wanted = append(wanted, v.Name)
			}
			command, _, _ := strings.Cut(name, " ")
			code, stdout, stderr := t.run(command, "--help")
			if code != 0 || stderr != "" {
				t.Errorf("%s: exit code %d: %s", name, code, stderr)
			}
			for _, want := range wanted {
				if !strings.Contains(stdout, want) {
					t.Errorf("%s: %s is missing in\n%s", name, want, stdout)
				}
			}
			if _, overview, _ := t.run("help"); !strings.Contains(overview, "  client "+name+" [flags]") {
				t.Errorf("%s is missing in\n%s", name, overview)
			}
		}
	})
}
