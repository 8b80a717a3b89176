package fault

import (
	"strings"
	"testing"
	"unicode"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire"
)

// FuzzClose has directors close connections with any reason: what people are told can be shown, and says something.
func FuzzClose(f *testing.F) {
	f.Add(uint64(wire.QUICShutdown), "shutdown: the director is shutting down")
	f.Add(uint64(wire.QUICRefused), "limit_exceeded: no room")
	f.Add(uint64(77), "\x1b[2J\u202e: \xff")
	f.Add(uint64(0), "")
	f.Fuzz(func(t *testing.T, code uint64, reason string) {
		err := Connection(&quic.ApplicationError{Remote: true, ErrorCode: quic.ApplicationErrorCode(code), ErrorMessage: reason}, wire.ALPNClient)
		e := wire.AsError(err, "")
		if e.Code == "" || strings.Trim(string(e.Code), "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%q has code %q", reason, e.Code)
		}
		text := err.Error()
		if strings.TrimSpace(e.Message) == "" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is told as %q", reason, text)
		}
	})
}
