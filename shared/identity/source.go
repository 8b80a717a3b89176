package identity

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// Source is where handshakes get their material from, each time anew. Its methods may be called from several
// goroutines and do not wait for others.
type Source interface {
	// Certificate is what this end proves itself with; nil if it has none.
	Certificate() (*tls.Certificate, error)
	// Roots are the authorities that peers' certificates must come from.
	Roots() (*x509.CertPool, error)
}

// Static is a Source that never changes. cert may be nil.
func Static(cert *tls.Certificate, roots *x509.CertPool) Source {
	return &material{cert: cert, roots: roots}
}

// material is one consistent set.
type material struct {
	cert        *tls.Certificate
	roots       *x509.CertPool
	rootsExpire time.Time // the last of them; zero if that is not known
}

func (m *material) Certificate() (*tls.Certificate, error) { return m.cert, nil }
func (m *material) Roots() (*x509.CertPool, error)         { return m.roots, nil }
