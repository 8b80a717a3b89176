package session

import (
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// readPrefix cuts the prefix into its chunks, which alias it, and computes their digest. It refuses
// one whose parts do not fit (CodeInvalid), or of which the director has another digest
// (CodeDiverged).
func readPrefix(p *wirepb.Prefix) ([]engine.Chunk, *session.Rolling, *wire.Error) {
	chunks, digest, err := session.PackOf(p).Split()
	if err != nil {
		return nil, nil, wire.Errorf(wire.CodeInvalid, "%v", err)
	}
	if len(chunks) == 0 && len(p.GetDigest()) == 0 { // the director need not spell out an empty prefix
		return nil, digest, nil
	}
	if here := digest.Digest(); !here.Equal(p.GetDigest()) {
		return nil, nil, wire.Errorf(wire.CodeDiverged, "the prefix of %d chunks has digest %s here and %x at the director",
			len(chunks), here, p.GetDigest())
	}
	return toEngine(chunks), digest, nil
}

// toEngine returns chunks as an engine gets them, which alias the others.
func toEngine(chunks []wire.Chunk) []engine.Chunk {
	if len(chunks) == 0 {
		return nil
	}
	all := make([]engine.Chunk, len(chunks))
	for i, c := range chunks {
		all[i].Text = c.Text
		if r := c.Rich; r != nil {
			all[i] = engine.Chunk{
				Text: c.Text, TokenIDs: r.TokenIDs, Choice: int(r.Choice), Channel: engine.Channel(r.Channel), Data: r.Data, Tokens: int(r.Tokens),
			}
			if r.Tokens == 0 {
				all[i].Tokens = engine.NoTokens
			}
		}
	}
	return all
}

// toWire returns a chunk as it travels, which aliases the other. It has to be within its limits.
func toWire(c engine.Chunk) wire.Chunk {
	w := wire.Chunk{Text: c.Text}
	if c.Choice != 0 || c.Channel != engine.Content || c.Count() != 1 || len(c.TokenIDs) > 0 || len(c.Data) > 0 {
		w.Rich = &wire.Rich{
			Choice: uint32(c.Choice), Channel: wire.Channel(c.Channel), Tokens: uint32(c.Count()), TokenIDs: c.TokenIDs, Data: c.Data,
		}
	}
	return w
}
