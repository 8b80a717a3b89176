package cli

import (
	"fmt"
	"io"

	"github.com/connswap/connswap/shared/config"
)

const overview = `client asks a connswap director for text, and prints it as it comes.

Usage:
  client generate [PROMPT] [flags]   see client generate --help
  client help                        this text
`

const generateUsage = `client generate has text generated and prints it as it comes.

Usage:
  client generate [PROMPT] [flags]

PROMPT is one argument: quote it. Flags may stand before and after it.

Flags, which win over the variables of the same name:
`

const exitCodes = `
Exit codes: 0 complete, 1 the stream ended in an error or there was no connection, 2 wrong command line or
configuration, 130 cancelled.
`

// help writes a usage text, with the flags and the table of variables.
func (p Process) help(text string) int {
	if err := writeHelp(p.Stdout, text); err != nil {
		return exitFailed
	}
	return exitDone
}

func writeHelp(w io.Writer, text string) error {
	if text == generateUsage {
		defaults := config.DefaultClient()
		text += newFlags(&defaults).FlagUsages()
	}
	if _, err := fmt.Fprintf(w, "%s\nVariables:\n\n", text); err != nil {
		return err
	}
	if err := config.Usage(w, config.Client{}); err != nil {
		return err
	}
	_, err := io.WriteString(w, exitCodes)
	return err
}
