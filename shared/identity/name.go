package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"strings"
)

// NameOf is the DNS name by which a certificate of a role names one node or person: worker-a.worker.connswap.
func (r Role) NameOf(name string) string { return name + "." + r.ServerName() }

// PeerNames are the names that the peer has proved, in the order of its certificate; none for a certificate that is good for
// anybody of its role. state must come from a connection made with ServerTLS or ClientTLS.
func PeerNames(state tls.ConnectionState) []string {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	return namesIn(state.PeerCertificates[0])
}

func namesIn(cert *x509.Certificate) (names []string) {
	role, ok := roleOf(cert)
	if !ok {
		return nil
	}
	for _, full := range cert.DNSNames {
		if name, ok := strings.CutSuffix(full, "."+role.ServerName()); ok && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// PeerName is the first of PeerNames, or empty.
func PeerName(state tls.ConnectionState) string {
	if names := PeerNames(state); len(names) > 0 {
		return names[0]
	}
	return ""
}

// PeerCertificate tells the peer's certificate from all others: its SHA-256, hex; empty where it showed none.
func PeerCertificate(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	sum := sha256.Sum256(state.PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}
