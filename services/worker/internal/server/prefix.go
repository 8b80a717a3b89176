package server

import (
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// readPrefix cuts the prefix into its tokens, which alias it, and computes their digest. It refuses
// one whose lengths and text do not fit (CodeInvalid), or of which the director has another digest
// (CodeDiverged).
func readPrefix(p *wirepb.Prefix) ([][]byte, *session.Rolling, *wire.Error) {
	tokens, digest, err := session.Split(p.GetText(), p.GetLengths(), wire.MaxToken)
	if err != nil {
		return nil, nil, wire.Errorf(wire.CodeInvalid, "%v", err)
	}
	if len(tokens) == 0 && len(p.GetDigest()) == 0 { // the director need not spell out an empty prefix
		return nil, digest, nil
	}
	if here := digest.Digest(); !here.Equal(p.GetDigest()) {
		return nil, nil, wire.Errorf(wire.CodeDiverged, "the prefix of %d tokens has digest %s here and %x at the director",
			len(tokens), here, p.GetDigest())
	}
	return tokens, digest, nil
}
