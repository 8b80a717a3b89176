package quicnet

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// EachAddress resolves target ("host:port") and calls try with each of its addresses in turn until it succeeds or ctx
// ends. The errors of all addresses tried are in the chain of its error, on one line.
func EachAddress(ctx context.Context, nw Network, target string, try func(addr string) error) error {
	addrs, err := nw.Resolve(ctx, target)
	if err != nil {
		return err
	}
	var failed attempts
	for _, addr := range addrs {
		err := try(addr)
		if err == nil {
			return nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(failed) == 0 {
		return &net.AddrError{Err: "no address", Addr: target}
	}
	return failed
}

// attempts are the errors of several addresses, on one line.
type attempts []error

func (a attempts) Error() string {
	texts := make([]string, len(a))
	for i, err := range a {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (a attempts) Unwrap() []error { return a }
