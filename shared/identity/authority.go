package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"time"
)

// Lifetimes of development certificates.
const (
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
	renewBefore     = 30 * 24 * time.Hour
	backdated       = time.Hour // for peers whose clock is behind
)

// developmentName marks the authorities that EnsureDevelopment made, and may replace.
const developmentName = "connswap development CA"

// authority signs development certificates.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// pair is a certificate and its key in PEM form.
type pair struct {
	cert, key []byte
}

func newAuthority(now time.Time) (*authority, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: developmentName},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: private}, nil
}

// issue makes a certificate and a key for a role, and for names in it; without names it is good for anybody of the role.
func (a *authority) issue(role Role, now time.Time, names ...string) (pair, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return pair{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: string(role)},
		DNSNames:    []string{role.ServerName()},
		NotBefore:   now.Add(-backdated),
		NotAfter:    now.Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		template.DNSNames = append(template.DNSNames, role.NameOf(name))
	}
	if role == Director || role == Worker {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return pair{}, err
	}
	return encode(der, private)
}

func (a *authority) encode() (pair, error) { return encode(a.cert.Raw, a.key) }

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// parseAuthority reads back what encode wrote.
func parseAuthority(certPEM, keyPEM []byte) (*authority, error) {
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PrivateKey.(ed25519.PrivateKey)
	if !ok || !cert.Leaf.IsCA {
		return nil, errors.New("not an Ed25519 authority")
	}
	return &authority{cert: cert.Leaf, key: key}, nil
}

func encode(der []byte, key ed25519.PrivateKey) (pair, error) {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}
