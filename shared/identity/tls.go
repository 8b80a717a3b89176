package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrRole is in the error of a handshake with a peer whose certificate is good, but of a role that may not do this.
var ErrRole = errors.New("wrong role")

// ServerTLS returns the configuration of a port that speaks the protocols in alpn, the preferred first. accept
// says, for a protocol, which roles may use it; they have to prove it with a certificate. A protocol without an
// entry may be used by anyone and asks for no certificate.
//
// A peer that is turned away gets the alert certificate_required (it showed none), bad_certificate (wrong role,
// or not valid) or no_application_protocol; in TLS 1.3 it sees that only after its own end of the handshake.
func ServerTLS(src Source, alpn []string, accept map[string][]Role) *tls.Config {
	s := &server{src: src, alpn: slices.Clone(alpn), accept: accept}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         s.alpn,
		GetCertificate:     s.certificate,
		VerifyConnection:   s.verify,
		GetConfigForClient: s.configFor,
	}
}

// server makes the configurations of a listener's handshakes. Nothing in it changes; the material is its source's.
type server struct {
	src    Source
	alpn   []string
	accept map[string][]Role
}

// configFor makes the configuration for one handshake: the certificate and the roots of this moment, and a
// request for the client's certificate if the protocol needs one.
func (s *server) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:       tls.VersionTLS13,
		NextProtos:       s.alpn,
		GetCertificate:   s.certificate,
		VerifyConnection: s.verify,
	}
	if _, needed := s.accept[s.negotiate(hello.SupportedProtos)]; !needed {
		return cfg, nil
	}
	roots, err := s.src.Roots()
	if err != nil {
		return nil, err
	}
	cfg.ClientCAs = roots
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg, nil
}

// certificate returns the one of this moment: a renewed one is used without a restart.
func (s *server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := s.src.Certificate()
	if err == nil && cert == nil {
		err = errors.New("identity: this node has no certificate to serve with")
	}
	return cert, err
}

// negotiate chooses as crypto/tls will. verify relies on what was chosen in fact.
func (s *server) negotiate(offered []string) string {
	for _, proto := range s.alpn {
		if slices.Contains(offered, proto) {
			return proto
		}
	}
	return ""
}

// verify ends a handshake whose peer speaks no protocol of ours, or has a certificate of a role that the protocol is not
// for. That the certificate is of our authority crypto/tls has checked before.
func (s *server) verify(state tls.ConnectionState) error {
	proto := state.NegotiatedProtocol
	if !slices.Contains(s.alpn, proto) {
		return fmt.Errorf("identity: the peer has to name one of the protocols %s", strings.Join(s.alpn, ", "))
	}
	allowed, needed := s.accept[proto]
	if !needed {
		return nil
	}
	role, ok := PeerRole(state)
	if !ok {
		return fmt.Errorf("identity: %w: the peer's certificate is of no role, %s is for %s", ErrRole, proto, list(allowed))
	}
	if !slices.Contains(allowed, role) {
		return fmt.Errorf("identity: %w: the peer is a %s, %s is for %s", ErrRole, role, proto, list(allowed))
	}
	return nil
}

func list(allowed []Role) string {
	names := make([]string, len(allowed))
	for i, role := range allowed {
		names[i] = string(role)
	}
	return strings.Join(names, " and ")
}

// ClientTLS returns the configuration for dialing a node of the role peer with the protocol alpn. It may be
// used for many handshakes: each has the material of its moment.
func ClientTLS(src Source, alpn string, peer Role) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: peer.ServerName(),
		NextProtos: []string{alpn},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := src.Certificate()
			if err == nil && cert == nil {
				cert = &tls.Certificate{} // go on without; the server decides
			}
			return cert, err
		},
		// The check that this skips knows only a fixed set of roots. VerifyConnection makes the same one
		// against those of the moment.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != alpn {
				return fmt.Errorf("identity: the peer does not speak %s", alpn)
			}
			return verifyServer(src, state, peer)
		},
	}
}

// verifyServer checks the chain, the dates and the role of the peer's certificate.
func verifyServer(src Source, state tls.ConnectionState, peer Role) error {
	roots, err := src.Roots()
	if err != nil {
		return err
	}
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("identity: the peer showed no certificate, want that of a %s", peer)
	}
	if roots == nil {
		return errors.New("identity: no roots to verify the peer's certificate with") // x509 would take the system's
	}
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	leaf := state.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
		return fmt.Errorf("identity: the peer's certificate: %w", err)
	}
	if role, ok := roleOf(leaf); !ok || role != peer {
		return fmt.Errorf("identity: %w: the peer's certificate is for %s, want that of a %s", ErrRole, strings.Join(leaf.DNSNames, ", "), peer)
	}
	return nil
}

// HTTPServerTLS returns the configuration of a port that speaks HTTP/1.1, to everybody. A peer that shows a certificate has
// to have a good one; PeerRole says of which role. Peers without are served too.
func HTTPServerTLS(src Source) *tls.Config {
	s := &server{src: src}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: s.certificate,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			roots, err := src.Roots()
			if roots == nil {
				roots = x509.NewCertPool() // without any, crypto/tls would take the system's
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: []string{HTTP}, GetCertificate: s.certificate,
				ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots,
			}, err
		},
	}
}

// WebTLS returns the configuration of a port that speaks HTTP/2 and HTTP/1.1 over TCP, to everybody, or with roles to those of
// them: these have to prove it with a certificate. Whoever names no protocol speaks HTTP/1.1.
func WebTLS(src Source, roles []Role) *tls.Config {
	s := &server{src: src, alpn: []string{HTTP2, HTTP}}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: s.alpn, GetCertificate: s.certificate,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: s.alpn, GetCertificate: s.certificate}
			if len(roles) == 0 {
				return cfg, nil
			}
			roots, err := src.Roots()
			if roots == nil {
				roots = x509.NewCertPool() // without any, crypto/tls would take the system's
			}
			cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, roots
			cfg.VerifyConnection = func(state tls.ConnectionState) error {
				if role, ok := PeerRole(state); !ok || !slices.Contains(roles, role) {
					return fmt.Errorf("identity: %w: the peer's certificate is of role %q, HTTP is for %s", ErrRole, role, list(roles))
				}
				return nil
			}
			return cfg, err
		},
	}
}

// HTTP2 is the other protocol of WebTLS.
const HTTP2 = "h2"

// HTTP is the protocol of HTTPServerTLS, for ClientTLS.
const HTTP = "http/1.1"
