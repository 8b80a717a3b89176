package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/identity"
)

func certsCommand() *cobra.Command {
	var split bool
	cmd := &cobra.Command{
		Use: "certs DIR", Short: "make development certificates in DIR, unless good ones are there",
		Long: `With --split each role has a directory of its own in DIR (director, worker, client; the client's has the operator's
too), with nothing but what it needs; the authority and its key are in DIR/authority, which no role needs.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return command.Misused(cmd, "%d arguments, one is needed: the directory", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ensure := identity.EnsureDevelopment
			if split {
				ensure = identity.EnsureSplit
			}
			made, err := ensure(args[0], time.Now())
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: development certificates %s\n", args[0], map[bool]string{true: "made", false: "are good, kept"}[made])
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&split, "split", false, "a directory for each role")
	return cmd
}
