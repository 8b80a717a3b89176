package main

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/config"
)

func keyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key NAME", Short: "make a key for a client, and its lines for CONNECTION_SWAP_DIRECTOR_KEYS_FILE",
		Long: `The key is on standard error, the lines for the file on standard output: director key team-a >> keys.yaml. The key itself is kept
nowhere. A file has the line "keys:" before the first of them.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return command.Misused(cmd, "%d arguments, one is needed: the name", len(args))
			}
			if err := config.CheckName(args[0]); err != nil {
				return command.Misused(cmd, "NAME: %v", err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			key := "sk-" + rand.Text() + rand.Text()
			fmt.Fprintf(cmd.ErrOrStderr(), "the key of %s is %s\n", args[0], key)
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "- name: %s\n  sha256: %x\n", args[0], sha256.Sum256([]byte(key)))
			return err
		},
	}
}
