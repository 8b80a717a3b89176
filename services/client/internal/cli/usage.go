package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/connswap/connswap/shared/config"
)

const exitCodes = `
Exit codes: 0 done, 1 it failed or was refused, or there was no connection, 2 wrong command line or
configuration, 130 cancelled.
`

// show writes a help text to stdout.
func (p Process) show(write func(w io.Writer) error) int {
	if err := write(p.Stdout); err != nil {
		return exitFailed
	}
	return exitDone
}

// writeOverview is the help on all commands.
func writeOverview(w io.Writer) error {
	if _, err := io.WriteString(w, `client asks a connswap director for text and prints it as it comes; and it has a director move streams
from one worker to another.

Usage:
`); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(table, "  %s\t%s\n", c.usage(), c.summary)
	}
	fmt.Fprintf(table, "  client help\tthis text; client COMMAND --help has more\n")
	if err := table.Flush(); err != nil {
		return err
	}
	if err := writeVariables(w, "Variables of client generate", config.Client{}); err != nil {
		return err
	}
	if err := writeVariables(w, "Variables of the other commands", config.Operator{}); err != nil {
		return err
	}
	_, err := io.WriteString(w, exitCodes)
	return err
}

// writeHelp is the help on one command.
func (c command) writeHelp(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "client %s %s.\n\nUsage:\n  %s\n\n%s\n\nFlags, which win over the variables of the same name:\n%s",
		c.name, c.summary, c.usage(), c.about, c.flags().FlagUsages()); err != nil {
		return err
	}
	if err := writeVariables(w, "Variables", c.config); err != nil {
		return err
	}
	_, err := io.WriteString(w, exitCodes)
	return err
}

func writeVariables(w io.Writer, title string, cfg any) error {
	if _, err := fmt.Fprintf(w, "\n%s:\n\n", title); err != nil {
		return err
	}
	return config.Usage(w, cfg)
}
