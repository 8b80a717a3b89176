package engines

import (
	"context"
	"strconv"

	"github.com/connswap/connswap/services/worker/engine"
)

const (
	counterVersion = 1
	counterWord    = "token-"
)

// Counter counts: its n-th token is "token-n ". It serves for reading logs.
type Counter struct{}

// Name returns counter.
func (Counter) Name() string { return "counter" }

// Fingerprint is a constant.
func (Counter) Fingerprint() string { return fingerprint("counter", counterVersion, counterWord) }

// Open counts on from the length of prefix.
func (Counter) Open(_ context.Context, _ engine.Request, prefix [][]byte) (engine.Generation, error) {
	return &count{n: uint64(len(prefix))}, nil
}

type count struct {
	n   uint64
	buf []byte
}

func (c *count) Next(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.n++
	c.buf = strconv.AppendUint(append(c.buf[:0], counterWord...), c.n, 10)
	c.buf = append(c.buf, ' ')
	return c.buf, nil
}

func (c *count) Close() error { return nil }
