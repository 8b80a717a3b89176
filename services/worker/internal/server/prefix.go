package server

import (
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// readPrefix cuts the prefix into its tokens, which alias it, and computes their digest. It refuses
// one whose lengths and text do not fit (CodeInvalid), or of which the director has another digest
// (CodeDiverged).
func readPrefix(p *wirepb.Prefix) ([][]byte, session.Digest, *wire.Error) {
	var digest session.Digest
	text := p.GetText()
	tokens := make([][]byte, 0, len(p.GetLengths()))
	for i, length := range p.GetLengths() {
		if length > wire.MaxToken || int(length) > len(text) {
			return nil, digest, wire.Errorf(wire.CodeInvalid, "token %d of the prefix has %d bytes; %d are left, and %d is the most that a token may have",
				i+1, length, len(text), wire.MaxToken)
		}
		tokens = append(tokens, text[:length:length])
		digest = digest.Add(text[:length])
		text = text[length:]
	}
	switch {
	case len(text) > 0:
		return nil, digest, wire.Errorf(wire.CodeInvalid, "the prefix has %d bytes more than its lengths say", len(text))
	case len(tokens) == 0 && len(p.GetDigest()) == 0: // the director need not spell out an empty prefix
		return nil, digest, nil
	case !digest.Equal(p.GetDigest()):
		return nil, digest, wire.Errorf(wire.CodeDiverged, "the prefix of %d tokens has digest %s here and %x at the director",
			len(tokens), digest, p.GetDigest())
	}
	return tokens, digest, nil
}
