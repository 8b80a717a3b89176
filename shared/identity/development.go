package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const caKeyFile = "ca-key.pem"

// NewDevelopment makes an authority and a certificate for each role, in memory and valid from now on, for
// tests and simulations.
func NewDevelopment(now time.Time) (map[Role]Source, error) {
	_, sources, err := NewNamed(now)
	return sources, err
}

// NewNamed is NewDevelopment whose authority makes further certificates, which name somebody.
func NewNamed(now time.Time) (name func(role Role, names ...string) (Source, error), sources map[Role]Source, err error) {
	ca, err := newAuthority(now)
	if err != nil {
		return nil, nil, err
	}
	name = func(role Role, names ...string) (Source, error) {
		issued, err := ca.issue(role, now, names...)
		if err != nil {
			return nil, err
		}
		cert, err := tls.X509KeyPair(issued.cert, issued.key)
		if err != nil {
			return nil, err
		}
		return Static(&cert, ca.pool()), nil
	}
	sources = make(map[Role]Source, len(roles))
	for _, role := range roles {
		if sources[role], err = name(role); err != nil {
			return nil, nil, err
		}
	}
	return name, sources, nil
}

// EnsureDevelopment makes sure that dir has an authority (ca.pem, ca-key.pem) and a certificate for each role
// that are valid at now and for 30 days more. What is good is kept; changed reports whether anything was made.
// A ca.pem that it did not make itself is never replaced.
//
// Several processes may do this at once, and others may read meanwhile: files are replaced as a whole, and a
// reader that finds old and new together keeps what it has (see FromDir).
func EnsureDevelopment(dir string, now time.Time) (changed bool, err error) {
	d := &development{dir: dir, now: now, dirMode: 0o700, keyMode: 0o600}
	if os.Geteuid() == 0 {
		// Root makes certificates for processes that run as other users: the images run as a number that
		// has no name here, and share a volume. For keys that prove nothing outside this machine, that they
		// can be read matters more than that they cannot.
		d.dirMode, d.keyMode = 0o755, 0o644
	}
	if err := os.MkdirAll(dir, d.dirMode); err != nil {
		return false, fmt.Errorf("development certificates: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return false, fmt.Errorf("development certificates: %w", err)
	}
	defer unlock()
	if err := d.ensure(); err != nil {
		return d.changed, fmt.Errorf("development certificates: %w", err)
	}
	return d.changed, nil
}

// EnsureSplit is EnsureDevelopment for directories of their own: dir/authority has the authority, and dir/director, dir/worker
// and dir/client what each of these roles needs, the client's the operator's too. So none finds another one's key.
func EnsureSplit(dir string, now time.Time) (changed bool, err error) {
	if changed, err = EnsureDevelopment(filepath.Join(dir, "authority"), now); err != nil {
		return changed, err
	}
	for _, owner := range []Role{Director, Worker, Client} {
		files := []string{caFile, keyFile(owner), certFile(owner)}
		if owner == Client {
			files = append(files, keyFile(Operator), certFile(Operator))
		}
		for _, name := range files {
			copied, err := copyFile(filepath.Join(dir, "authority", name), filepath.Join(dir, string(owner), name))
			if err != nil {
				return changed, fmt.Errorf("development certificates: %w", err)
			}
			changed = changed || copied
		}
	}
	return changed, nil
}

// copyFile copies a file with its mode, in one step, unless it is there.
func copyFile(from, to string) (copied bool, err error) {
	info, err := os.Stat(from)
	if err != nil {
		return false, err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return false, err
	}
	if there, err := os.ReadFile(to); err == nil && bytes.Equal(there, content) {
		return false, nil
	}
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755 // as EnsureDevelopment
	}
	if err := os.MkdirAll(filepath.Dir(to), mode); err != nil {
		return false, err
	}
	return true, replace(to, content, info.Mode().Perm())
}

// development is a directory that is to have good certificates of all roles.
type development struct {
	dir              string
	now              time.Time
	dirMode, keyMode fs.FileMode
	changed          bool
}

// ensure issues what is missing, damaged or about to expire, and leaves everything else as it is.
func (d *development) ensure() error {
	ca, err := d.authority()
	if err != nil {
		return err
	}
	for _, role := range roles {
		if d.good(role, ca) {
			continue
		}
		issued, err := ca.issue(role, d.now)
		if err != nil {
			return err
		}
		if err := d.write(certFile(role), keyFile(role), issued, d.keyMode); err != nil {
			return err
		}
	}
	return nil
}

// authority reads the authority, or makes one if there is none or it will not outlive the next certificate.
func (d *development) authority() (*authority, error) {
	certPEM, _ := os.ReadFile(filepath.Join(d.dir, caFile)) // what cannot be read is made anew
	if block, _ := pem.Decode(certPEM); block != nil {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err == nil && cert.Subject.CommonName != developmentName {
			return nil, fmt.Errorf("%s is of %q, not made for development; remove it or choose another directory",
				filepath.Join(d.dir, caFile), cert.Subject)
		}
	}
	keyPEM, _ := os.ReadFile(filepath.Join(d.dir, caKeyFile))
	ca, err := parseAuthority(certPEM, keyPEM)
	if err == nil && lasts(ca.cert, d.now, certificateLife) {
		return ca, nil
	}
	if ca, err = newAuthority(d.now); err != nil {
		return nil, err
	}
	encoded, err := ca.encode()
	if err != nil {
		return nil, err
	}
	return ca, d.write(caFile, caKeyFile, encoded, 0o600) // nobody but us signs
}

// good reports whether the role has a certificate of ca, with its key, that lasts.
func (d *development) good(role Role, ca *authority) bool {
	cert, err := tls.LoadX509KeyPair(filepath.Join(d.dir, certFile(role)), filepath.Join(d.dir, keyFile(role)))
	if err != nil {
		return false
	}
	found, ok := roleOf(cert.Leaf)
	return ok && found == role && cert.Leaf.CheckSignatureFrom(ca.cert) == nil && lasts(cert.Leaf, d.now, renewBefore)
}

// lasts reports whether a certificate is good now and for that time.
func lasts(cert *x509.Certificate, now time.Time, life time.Duration) bool {
	return !now.Before(cert.NotBefore) && now.Add(life).Before(cert.NotAfter)
}

// write replaces a pair of files, the key first: a reader that finds the new certificate finds its key too.
func (d *development) write(certName, keyName string, content pair, keyMode fs.FileMode) error {
	d.changed = true
	if err := replace(filepath.Join(d.dir, keyName), content.key, keyMode); err != nil {
		return err
	}
	return replace(filepath.Join(d.dir, certName), content.cert, 0o644)
}

// replace puts a file in the place of another in one step.
func replace(path string, content []byte, mode fs.FileMode) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name()) //nolint:errcheck // the first error matters
		}
	}()
	if _, err := file.Write(content); err != nil {
		file.Close() //nolint:errcheck // the first error matters
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Chmod(file.Name(), mode); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
