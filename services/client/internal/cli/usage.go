package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/connswap/connswap/shared/config"
)

const exitCodes = `
Exit codes: 0 done, 1 it failed or was refused, or there was no connection, 2 wrong command line or
configuration, 130 cancelled, or nobody reads the output any more.
`

// configOf is the name of the annotation with which configuration a command reads: client or operator.
const configOf = "configuration"

func reads(of string) map[string]string { return map[string]string{configOf: of} }

// variablesOf returns the struct of package config that a command reads.
func variablesOf(cmd *cobra.Command) any {
	switch cmd.Annotations[configOf] {
	case "client":
		return config.Client{}
	case "operator":
		return config.Operator{}
	}
	return nil
}

// writeHelp writes the help on a command, or the overview of all. What fails the writer remembers.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	if !cmd.HasParent() {
		writeOverview(w, cmd)
		return
	}
	fmt.Fprintf(w, "%s %s.\n\nUsage:\n  %s\n", cmd.CommandPath(), strings.TrimSuffix(cmd.Short, "."), cmd.UseLine())
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Long)
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintln(w)
		writeCommands(w, cmd.Commands())
	}
	if cfg := variablesOf(cmd); cfg != nil {
		fmt.Fprintf(w, "\nFlags, which win over the variables of the same name:\n%s", cmd.LocalFlags().FlagUsages())
		writeVariables(w, "Variables", cfg)
	}
	io.WriteString(w, exitCodes) //nolint:errcheck // see above
}

// writeOverview is the help on all commands.
func writeOverview(w io.Writer, root *cobra.Command) {
	fmt.Fprintf(w, "client %s\n\nUsage:\n\n", root.Short)
	writeCommands(w, root.Commands())
	fmt.Fprintf(w, "\nclient COMMAND --help has more, client --version says what this is.\n")
	writeVariables(w, "Variables of client generate", config.Client{})
	writeVariables(w, "Variables of the other commands", config.Operator{})
	io.WriteString(w, exitCodes) //nolint:errcheck // see above
}

func writeCommands(w io.Writer, commands []*cobra.Command) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, c := range commands {
		if c.IsAvailableCommand() || c.Name() == "help" {
			fmt.Fprintf(table, "  %s\t%s\n", c.UseLine(), c.Short)
		}
	}
	_ = table.Flush() // see above
}

func writeVariables(w io.Writer, title string, cfg any) {
	fmt.Fprintf(w, "\n%s:\n\n", title)
	_ = config.Usage(w, cfg) // see above
}
