package cli

import (
	"fmt"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
)

const (
	targetVariable = config.Prefix + "_DIRECTOR_TARGET"
	tlsVariable    = config.Prefix + "_TLS_DIR"
	keyVariable    = config.Prefix + "_CLIENT_KEY_FILE"
)

// adviseOnDial says why there is no connection, and what to do.
func (g *generation) adviseOnDial(err error) string {
	cfg := g.settings.cfg
	switch describe(err).Code {
	case connswap.CodeLost:
		return fmt.Sprintf("cannot reach a director at %s=%q: %v; start one there, or set the variable to where it is",
			targetVariable, cfg.Target, err)
	case connswap.CodeUnauthorized:
		return fmt.Sprintf("no trusted connection to %s=%q: %v; both ends need certificates of one authority, this end has those in %s=%q; its key, if the director wants one, is in %s=%q",
			targetVariable, cfg.Target, err, tlsVariable, cfg.TLSDir, keyVariable, cfg.KeyFile)
	case connswap.CodeVersion:
		return fmt.Sprintf("%s=%q speaks another protocol or version: %v; give a director's USER port, and use a client of its version",
			targetVariable, cfg.Target, err)
	default:
		return fmt.Sprintf("the director at %s=%q refuses: %v", targetVariable, cfg.Target, err)
	}
}

// adviseOnStream says why a stream ended before it was complete, and what to do.
func (g *generation) adviseOnStream(err error) string {
	return advised(fmt.Sprintf("the stream ended after token %d: %v", g.report.sequence, err), describe(err).Code)
}

// advised is said, with what to do about it.
func advised(said string, code wire.Code) string {
	if advice := fault.Advice(code); advice != "" {
		said += "; " + advice
	}
	return said
}

const mgmtVariable = config.Prefix + "_DIRECTOR_MGMT_ADDR"

// adviseOnDirector says why an operator has no connection, and what to do.
func adviseOnDirector(cfg config.Operator, err error) string {
	if describe(err).Code == wire.CodeLost {
		return clean(fmt.Sprintf("cannot reach a director at %s=%q: %v; start one there, or set the variable to where it is",
			mgmtVariable, cfg.Director, err))
	}
	return adviseOnRequest(cfg, err)
}

// adviseOnRequest says why an operator did not get what was asked for, and what to do.
func adviseOnRequest(cfg config.Operator, err error) string {
	said := err.Error()
	switch describe(err).Code {
	case wire.CodeLost:
		said = fmt.Sprintf("lost the director at %s=%q: %v", mgmtVariable, cfg.Director, err)
	case wire.CodeUnauthorized:
		said = fmt.Sprintf("the director at %s=%q and this operator do not trust each other: %v; "+
			"both need certificates of one authority, this end has operator.pem of %s=%q",
			mgmtVariable, cfg.Director, err, tlsVariable, cfg.TLSDir)
	case wire.CodeVersion, wire.CodeProtocol:
		said = fmt.Sprintf("%s=%q is not understood: %v; give a director's MGMT port, and use a client of its version",
			mgmtVariable, cfg.Director, err)
	case wire.CodeShutdown, wire.CodeInternal:
		said = advised(said, describe(err).Code)
	default: // the director's own words are enough
	}
	return clean(said)
}
