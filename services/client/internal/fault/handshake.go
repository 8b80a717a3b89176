package fault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

// TLS alerts (RFC 8446 §6.2, RFC 7301 §3.2).
const (
	alertHandshakeFailure       tls.AlertError = 40
	alertBadCertificate         tls.AlertError = 42
	alertUnsupportedCertificate tls.AlertError = 43
	alertCertificateRevoked     tls.AlertError = 44
	alertCertificateExpired     tls.AlertError = 45
	alertCertificateUnknown     tls.AlertError = 46
	alertUnknownCA              tls.AlertError = 48
	alertAccessDenied           tls.AlertError = 49
	alertProtocolVersion        tls.AlertError = 70
	alertInsufficientSecurity   tls.AlertError = 71
	alertCertificateRequired    tls.AlertError = 116
	alertNoApplicationProtocol  tls.AlertError = 120
)

// refusals are what the director says of this side's certificate.
var refusals = map[tls.AlertError]string{
	alertBadCertificate: "the director refuses this side's certificate (bad certificate): it is damaged, or not for this; " +
		"show one of the right role",
	alertUnsupportedCertificate: "the director refuses this side's certificate (unsupported certificate): its kind of key is not known there; " +
		"show another",
	alertCertificateRevoked: "the director refuses this side's certificate (revoked certificate); get a new one",
	alertCertificateExpired: "the director refuses this side's certificate (expired certificate); renew it, and look at both clocks",
	alertCertificateUnknown: "the director refuses this side's certificate (unknown certificate); show one of its authority",
	alertUnknownCA: "the director refuses this side's certificate (unknown certificate authority); " +
		"show one of the director's authority",
	alertAccessDenied:        "the director refuses this side's certificate (access denied): it is not for this; show one of the right role",
	alertCertificateRequired: "the director asks for a certificate (certificate required), and this side has none; give it one of the director's authority",
}

// handshake says how a TLS handshake failed, over QUIC or TCP; the sentence is empty for all other errors.
func handshake(err error, protocol string) (wire.Code, string) {
	var (
		quicError *quic.TransportError
		tcpError  *net.OpError
		plain     tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &quicError) && quicError.ErrorCode.IsCryptoError():
		alert := tls.AlertError(quicError.ErrorCode - 0x100) // RFC 9001 §4.8
		if quicError.Remote || alert == alertNoApplicationProtocol {
			return refused(alert, err, protocol)
		}
	case errors.As(err, &tcpError) && tcpError.Op == "remote error": // crypto/tls keeps the alert's type to itself
		return refused(alertOf(tcpError.Err.Error()), err, protocol)
	case errors.As(err, &plain):
		return wire.CodeVersion, "what listens there does not speak TLS; look at the port"
	}
	if sentence := mistrust(err); sentence != "" {
		return wire.CodeUnauthorized, sentence
	}
	if quicError != nil && quicError.ErrorCode.IsCryptoError() {
		return wire.CodeUnauthorized, fmt.Sprintf("TLS handshake: %v", err)
	}
	return "", ""
}

// alertOf returns the alert of that text, or 0.
func alertOf(text string) tls.AlertError {
	for alert := range tls.AlertError(255) {
		if alert.Error() == text {
			return alert
		}
	}
	return 0
}

// refused says why the other side ended the handshake.
func refused(alert tls.AlertError, err error, protocol string) (wire.Code, string) {
	switch alert {
	case alertNoApplicationProtocol:
		return wire.CodeVersion, fmt.Sprintf("the peer does not speak %s: it is another port, or another version", protocol)
	case alertProtocolVersion, alertInsufficientSecurity, alertHandshakeFailure:
		return wire.CodeVersion, fmt.Sprintf("no common version of TLS: %v", err)
	}
	if sentence, ok := refusals[alert]; ok {
		return wire.CodeUnauthorized, sentence
	}
	return wire.CodeUnauthorized, fmt.Sprintf("TLS handshake: %v", err)
}

// mistrust says what this side does not like about the director's certificate; it is empty for all other errors.
func mistrust(err error) string {
	var (
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		other   *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if time.Now().Before(invalid.Cert.NotBefore) {
			return fmt.Sprintf("the director's certificate is not valid before %s; look at both clocks", stamp(invalid.Cert.NotBefore))
		}
		return fmt.Sprintf("the director's certificate has expired, at %s; renew it, and look at both clocks", stamp(invalid.Cert.NotAfter))
	case errors.As(err, &unknown):
		return "the director's certificate is signed by an unknown authority, not by the one that this side knows"
	case errors.Is(err, identity.ErrRole):
		return fmt.Sprintf("who listens there is no director: %v; look at the address", err)
	case errors.As(err, &other):
		return fmt.Sprintf("the director's certificate is not good: %v", other.Err)
	default:
		return ""
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
