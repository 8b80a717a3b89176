package telemetry

import (
	"bytes"
	"log"
	"strings"

	"go.uber.org/zap"
)

// RedirectLibraries has what libraries write to the standard logger, net/http and quic-go among them, go to log, as
// warnings.
func RedirectLibraries(to *zap.Logger) {
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(libraries{to.With(sampleField("library", fewLines))})
}

type libraries struct{ log *zap.Logger }

// Write logs one message.
func (l libraries) Write(p []byte) (int, error) {
	text := string(bytes.TrimSpace(p))
	switch {
	case text == "":
	case strings.Contains(text, "UDP-Buffer-Sizes"): // quic-go says it once, for the first socket
		l.log.Warn("small UDP buffers, packets may get lost under load; "+
			"set net.core.rmem_max and net.core.wmem_max to 7500000 (sysctl) on this machine", zap.String("reason", text))
	default:
		l.log.Warn("a library reports", zap.String("reason", text))
	}
	return len(p), nil
}
