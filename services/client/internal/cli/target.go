package cli

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/connswap/connswap/shared/config"
)

// noArguments is the parse of most operations.
type noArguments struct{}

func (noArguments) parse(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q, there is none", args[0])
	}
	return nil
}

// onWorker is the part of the operations on one worker.
type onWorker struct{ worker string }

func (o *onWorker) parse(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments, one is needed: the name of a worker, as client status shows it", len(args))
	}
	o.worker = args[0]
	return nil
}

func (o *onWorker) check() problems { return checkName("WORKER", o.worker) }

// onStream is the part of the operations on one stream.
type onStream struct {
	noArguments
	connection string
	stream     uint64
}

func (o *onStream) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.connection, "connection", "", "`id` of the stream's connection (conn-…), as client status shows it")
	flags.Var((*config.Uint)(&o.stream), "stream", "`number` of the stream, if it is not the only one of its connection")
}

func (o *onStream) check() problems {
	if o.connection == "" {
		return problems{{Variable: "--connection", Want: "missing; give the id of a connection (conn-…), as client status shows it"}}
	}
	return checkName("--connection", o.connection)
}

// checkName checks what is to be the name of something.
func checkName(variable, name string) problems {
	if err := config.CheckName(name); err != nil {
		return problems{{Variable: variable, Value: name, Want: err.Error()}}
	}
	return nil
}
