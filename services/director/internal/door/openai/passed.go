package openai

import (
	"encoding/json"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// passed collects an answer that the engine makes as a whole, and hands it on as it is.
type passed struct {
	body []byte
	err  *wire.Error
}

func (p *passed) delta(d *delta) { p.body = append(p.body, d.text...) }

func (p *passed) fail(err *wire.Error) { p.err = err }

func (p *passed) finish(done *wirepb.Done) {
	switch {
	case done.GetFinishReason() == "length":
		p.err = wire.Errorf(wire.CodeInternal, "the answer is larger than the %d bytes that are there of it (CONNECTION_SWAP_DIRECTOR_MAX_SESSION_BYTES)", len(p.body))
	case !json.Valid(p.body):
		p.err = wire.Errorf(wire.CodeEngine, "the engine's answer is no JSON")
	}
}

func (p *passed) document() ([]byte, *wire.Error) { return p.body, p.err }
