package cli

import (
	"context"
	"strings"

	"github.com/spf13/pflag"
)

// command is one of the words that may follow the program's name.
type command struct {
	name    string
	args    string // what follows it in the usage, without the flags
	summary string // half a sentence, for the list of commands
	about   string // what else there is to know

	config any                   // whose variables it reads, a struct of package config
	flags  func() *pflag.FlagSet // for its help
	run    func(ctx context.Context, p Process, args []string) int
}

// commands are all there are, in the order of the help. A function, because a command's help is about the table
// that it stands in.
func commands() []command {
	return []command{
		generateCommand(),
		statusCommand(),
		swapCommand(),
		drainCommand(),
		undrainCommand(),
		rebalanceCommand(),
		confirmCommand(),
		vetoCommand(),
	}
}

// choices names all commands.
func choices() string {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	last := len(names) - 1
	return "the commands are " + strings.Join(names[:last], ", ") + " and " + names[last]
}

// usage is how the command is written.
func (c command) usage() string {
	words := []string{"client", c.name}
	if c.args != "" {
		words = append(words, c.args)
	}
	return strings.Join(append(words, "[flags]"), " ")
}
