package mgmt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/telemetry"
	"github.com/connswap/connswap/shared/wire"
)

// Access says who may do what over HTTP. Health is for everybody.
type Access struct {
	PlainStatus bool    // everybody may read documents; else only operators may
	Tokens      *Tokens // of operators who have no certificate; nil for none
	Log         *zap.Logger
}

// Caller returns who has proved to be an operator with this request, as a name that is the same each time, and is empty for
// anybody else.
func Caller(r *http.Request) string {
	name, _ := r.Context().Value(callerKey{}).(string)
	return name
}

// IsOperator reports whether an operator has made the request.
func IsOperator(r *http.Request) bool { return Caller(r) != "" }

type callerKey struct{}

// readers lets through who may read documents.
func (a Access) readers(next http.HandlerFunc) http.HandlerFunc {
	return a.gate(next, a.PlainStatus, "status is for operators here, unless CONNECTION_SWAP_MGMT_PLAIN_STATUS=true allows it to all")
}

// operators lets through who may change something.
func (a Access) operators(next http.HandlerFunc) http.HandlerFunc {
	return a.gate(next, false, "this is for operators")
}

// gate lets operators through, and others where everybody may.
func (a Access) gate(next http.HandlerFunc, everybody bool, why string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller, refusal := a.identify(r)
		switch {
		case refusal != nil && !everybody:
			a.refused(r, refusal)
			if r.Header.Get("Authorization") != "" {
				challenge(w, refusal)
			} else {
				refuse(w, http.StatusForbidden, refusal)
			}
		case caller != "":
			if c := connOf(r.Context()); c != nil {
				c.table.trust(c)
			}
			next(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
		case everybody:
			next(w, r)
		default:
			refusal = wire.Errorf(wire.CodeUnauthorized,
				"%s; come over https, with an operator's certificate (operator.pem) or a bearer token", why)
			a.refused(r, refusal)
			challenge(w, refusal)
		}
	}
}

// refused logs a request that is not let through.
func (a Access) refused(r *http.Request, why *wire.Error) {
	a.Log.Warn("refused on the MGMT port", zap.String("address", r.RemoteAddr), zap.String("wanted", r.Method+" "+wire.Text(r.URL.Path)),
		zap.String("reason", why.Message), telemetry.From(r.RemoteAddr))
}

// challenge asks for another proof.
func challenge(w http.ResponseWriter, refusal *wire.Error) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	refuse(w, http.StatusUnauthorized, refusal)
}

// identify returns the operator's name; none for a request without any proof. The error says what is wrong with one.
func (a Access) identify(r *http.Request) (string, *wire.Error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		role, _ := identity.PeerRole(*r.TLS)
		cert := r.TLS.PeerCertificates[0]
		switch {
		case role != identity.Operator:
			return "", wire.Errorf(wire.CodeUnauthorized, "a certificate of role %q is not an operator's; use operator.pem", role)
		case time.Now().After(cert.NotAfter): // since the handshake
			return "", wire.Errorf(wire.CodeUnauthorized, "the operator's certificate has expired; renew it, and connect again")
		}
		sum := sha256.Sum256(cert.Raw)
		return "certificate " + hex.EncodeToString(sum[:]), nil
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", nil
	}
	token, ok := strings.CutPrefix(header, "Bearer ")
	switch {
	case !ok:
		return "", wire.Errorf(wire.CodeUnauthorized, `the header Authorization has to be "Bearer" and a token`)
	case r.TLS == nil && !isLoopback(r.RemoteAddr):
		return "", wire.Errorf(wire.CodeUnauthorized,
			"the bearer token came in clear text, where others can read it: replace it, and come over https")
	case a.Tokens == nil:
		return "", wire.Errorf(wire.CodeUnauthorized, "no bearer tokens are known here; come with an operator's certificate (operator.pem)")
	}
	name, ok := a.Tokens.check(strings.TrimSpace(token))
	if !ok {
		return "", wire.Errorf(wire.CodeUnauthorized, "the bearer token is not one of CONNECTION_SWAP_DIRECTOR_OPERATOR_TOKENS_FILE")
	}
	return name, nil
}

// isLoopback reports whether what comes from an address has left no machine.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}
