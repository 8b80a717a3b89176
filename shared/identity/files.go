package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/connswap/connswap/shared/config"
)

const caFile = "ca.pem"

func certFile(role Role) string { return string(role) + ".pem" }
func keyFile(role Role) string  { return string(role) + "-key.pem" }

// reader reads the material of one role from a directory and collects everything that is wrong with it.
type reader struct {
	dir      string
	role     Role
	now      time.Time
	expire   time.Time // of the roots, once they are read
	problems config.Problems
}

// read returns the material, or a *config.Problems that names the variable of the directory.
func read(dir string, role Role, now time.Time) (*material, error) {
	r := &reader{dir: dir, role: role, now: now}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		r.refuse("no such directory; %s", r.remedy())
		return nil, &r.problems
	}
	roots := r.roots()
	cert := r.certificate()
	if roots != nil && cert != nil {
		r.check(cert, roots)
	}
	if len(r.problems.List) > 0 {
		return nil, &r.problems
	}
	return &material{cert: cert, roots: roots, rootsExpire: r.expire}, nil
}

func (r *reader) refuse(format string, args ...any) {
	r.problems.List = append(r.problems.List, config.Problem{
		Variable: config.Prefix + "_TLS_DIR", Value: r.dir, Want: fmt.Sprintf(format, args...),
	})
}

func (r *reader) remedy() string {
	return fmt.Sprintf("run make certs DIR=%s, or give the directory that has %s, %s and %s",
		r.dir, caFile, certFile(r.role), keyFile(r.role))
}

// file reads one file; nil if that was a problem.
func (r *reader) file(name string) []byte {
	data, err := readFile(filepath.Join(r.dir, name))
	switch {
	case err == nil:
		return data
	case errors.Is(err, fs.ErrNotExist):
		r.refuse("%s is missing; %s", name, r.remedy())
	case errors.Is(err, fs.ErrPermission):
		r.refuse("%s may not be read by user %d; change its owner or mode", name, os.Geteuid())
	default:
		r.refuse("%s cannot be read (%v); %s", name, err, r.remedy())
	}
	return nil
}

// maxFile is more than any certificate or key has, in bytes.
const maxFile = 1 << 20

// readFile reads a file of ordinary size; nothing else, which might not end.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it has %d bytes, more than a certificate needs", info.Size())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(file, maxFile))
}

func (r *reader) roots() *x509.CertPool {
	data := r.file(caFile)
	if data == nil {
		return nil
	}
	pool := x509.NewCertPool()
	var newest *x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			r.refuse("%s has a certificate that cannot be read (%v); %s", caFile, err, r.remedy())
			return nil
		}
		pool.AddCert(cert)
		if newest == nil || cert.NotAfter.After(newest.NotAfter) {
			newest = cert
		}
	}
	if newest == nil {
		r.refuse("%s has no certificate in PEM form; %s", caFile, r.remedy())
		return nil
	}
	if !r.inTime(caFile, newest) {
		return nil
	}
	r.expire = newest.NotAfter
	return pool
}

// certificate is nil without a problem for a client that has none.
func (r *reader) certificate() *tls.Certificate {
	if r.role == Client && !r.exists(certFile(Client)) && !r.exists(keyFile(Client)) {
		return nil
	}
	certPEM, keyPEM := r.file(certFile(r.role)), r.file(keyFile(r.role))
	if certPEM == nil || keyPEM == nil {
		return nil
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		r.refuse("%s and %s are not a certificate and its key (%v); %s", certFile(r.role), keyFile(r.role), err, r.remedy())
		return nil
	}
	return &cert
}

func (r *reader) exists(name string) bool {
	_, err := os.Stat(filepath.Join(r.dir, name))
	return !errors.Is(err, fs.ErrNotExist)
}

// check looks at the role, the dates and the chain of the node's own certificate, so that a wrong one is
// noticed here and not at every peer.
func (r *reader) check(cert *tls.Certificate, roots *x509.CertPool) {
	name := certFile(r.role)
	if role, ok := roleOf(cert.Leaf); !ok || role != r.role {
		r.refuse("%s is a certificate for %q, not for %s; %s", name, cert.Leaf.DNSNames, r.role.ServerName(), r.remedy())
	}
	if !r.inTime(name, cert.Leaf) {
		return
	}
	intermediates := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if issuer, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(issuer)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: r.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		r.refuse("%s does not come from %s (%v); %s", name, caFile, err, r.remedy())
	}
}

func (r *reader) inTime(name string, cert *x509.Certificate) bool {
	if r.now.After(cert.NotAfter) {
		r.refuse("%s expired at %s; %s", name, cert.NotAfter.Format(time.RFC3339), r.remedy())
		return false
	}
	if r.now.Before(cert.NotBefore) {
		r.refuse("%s is not valid before %s; set this machine's clock (%s), or %s",
			name, cert.NotBefore.Format(time.RFC3339), r.now.UTC().Format(time.RFC3339), r.remedy())
		return false
	}
	return true
}
