package command

import (
	"github.com/spf13/cobra"
)

// strict has a misuse of help and completion be one, which cobra answers with some help and code 0. The function that it returns
// says whether help was asked for on what is no command.
func strict(root *cobra.Command) (misused func() error) {
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = commandOf(root)
		case "completion":
			c.RunE = func(cmd *cobra.Command, _ []string) error { return Misused(cmd, "no shell; %s", Choices(cmd)) }
			c.Args = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return Unknown(cmd, args[0])
				}
				return nil
			}
			for _, shell := range c.Commands() {
				shell.Args = None
			}
		}
	}
	var wrong error
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if !cmd.HasParent() {
			wrong = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if wrong == nil {
			help(cmd, args)
		}
	})
	return func() error { return wrong }
}

// commandOf is for arguments that name a command.
func commandOf(root *cobra.Command) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		found, rest, err := root.Find(args)
		switch {
		case err != nil || len(rest) == 0:
			return err
		case found.HasAvailableSubCommands():
			return Unknown(found, rest[0])
		default:
			return None(found, rest)
		}
	}
}
