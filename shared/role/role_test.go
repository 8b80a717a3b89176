package role

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// TestCommandLine: what a role does with each, with which exit code, and what it says where.
func TestCommandLine(t *testing.T) {
	var served int
	var asked []string
	program := func() Command {
		return Command{
			Name: "director", Summary: "serves clients", Serves: "SIGHUP reloads certificates", Config: config.Director{},
			Serve:    func(*telemetry.Output) error { served++; return nil },
			MgmtAddr: func() (string, error) { return "", config.Problem{Variable: "X", Value: "y", Want: "z"} },
			Others: []*cobra.Command{{
				Use: "certs DIR", Short: "make certificates", Args: cobra.ExactArgs(1),
				RunE: func(_ *cobra.Command, args []string) error {
					asked = append(asked, args[0])
					return map[string]error{"bad": errors.New("cannot\nbe")}[args[0]]
				},
			}},
		}
	}
	version := fmt.Sprintf("connswap director %s (protocol: clients %d, workers %d; %s)\n", wire.Build, wire.Version, wire.NewestPeerVersion, runtime.Version())
	for name, test := range map[string]struct {
		args     []string
		code     int
		out, err string // contained
	}{
		"nothing":          {nil, 0, "", ""},
		"help":             {[]string{"--help"}, 0, "director serves clients.\n", ""},
		"help on all":      {[]string{"help"}, 0, "CONNECTION_SWAP_DIRECTOR_USER_ADDR", ""},
		"help on one":      {[]string{"certs", "-h"}, 0, "director certs DIR", ""},
		"version":          {[]string{"--version"}, 0, version, ""},
		"version, as word": {[]string{"version"}, 0, version, ""},
		"completion":       {[]string{"completion", "bash"}, 0, "bash completion", ""},
		"another":          {[]string{"certs", "here"}, 0, "", ""},
		"another fails":    {[]string{"certs", "bad"}, 1, "", "director: cannot\ndirector: be\n"},
		"nearly":           {[]string{"helthz"}, 2, "", `director: unknown command "helthz"; did you mean healthz? (see director --help)`},
		"not at all":       {[]string{"serve"}, 2, "", "the commands are healthz, certs, version and completion (see director --help)"},
		"no such flag":     {[]string{"--port=5"}, 2, "", "director: unknown flag: --port (see director --help)"},
		"too much":         {[]string{"healthz", "now"}, 2, "", `director: unexpected argument "now", there is none (see director healthz --help)`},
		"configuration":    {[]string{"healthz"}, 2, "", `X="y": z`},
	} {
		t.Run(name, func(t *testing.T) {
			before := served
			var out, notes text
			require.Equal(t, test.code, command.Run(t.Context(), program().root(), test.args, &out, &notes))
			require.Contains(t, string(out), test.out)
			require.Contains(t, string(notes), test.err)
			if test.code == 0 {
				require.Empty(t, string(notes))
			} else {
				require.Empty(t, string(out))
			}
			require.Equal(t, len(test.args) == 0, served > before)
		})
	}
	require.ElementsMatch(t, []string{"here", "bad"}, asked)
}

type text []byte

func (t *text) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	return len(p), nil
}
