// Package identity says who is who: every node has a certificate for one role, and both ends of a connection
// check the other's. Certificates change without a restart.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
)

// Role is what a certificate allows its owner to be. It stands in the certificate as the DNS name ServerName.
type Role string

// The roles.
const (
	Director Role = "director"
	Worker   Role = "worker"
	Client   Role = "client"
	Operator Role = "operator"
)

var roles = []Role{Director, Worker, Client, Operator}

const domain = ".connswap"

// ServerName is the DNS name in the certificates of the role. Whoever dials a node of the role verifies that
// name, wherever the node is.
func (r Role) ServerName() string { return string(r) + domain }

// PeerRole is the role that the peer has proved. state must come from a connection made with ServerTLS or
// ClientTLS, which have verified the certificate. It is false for a peer without a certificate.
func PeerRole(state tls.ConnectionState) (Role, bool) {
	if len(state.PeerCertificates) == 0 {
		return "", false
	}
	return roleOf(state.PeerCertificates[0])
}

// roleOf is false for a certificate of no role, and of more than one.
func roleOf(cert *x509.Certificate) (Role, bool) {
	var found []Role
	for _, name := range cert.DNSNames {
		if role, ok := strings.CutSuffix(name, domain); ok && slices.Contains(roles, Role(role)) {
			found = append(found, Role(role))
		}
	}
	if len(found) != 1 {
		return "", false
	}
	return found[0], true
}
