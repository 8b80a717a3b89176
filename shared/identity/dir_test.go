package identity_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

func ensure(t *testing.T, dir string) (changed bool) {
	t.Helper()
	changed, err := identity.EnsureDevelopment(dir, time.Now())
	require.NoError(t, err)
	return changed
}

func remove(t *testing.T, path ...string) {
	t.Helper()
	require.NoError(t, os.Remove(filepath.Join(path...)))
}

func put(t *testing.T, content string, path ...string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(path...), []byte(content), 0o600))
}

func get(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(content)
}

func TestFromDirRefuses(t *testing.T) {
	tests := []struct {
		name  string
		role  identity.Role
		spoil func(t *testing.T, dir string)
		want  []string // how each line goes on after the variable and its value
	}{
		{
			"no directory", identity.Worker, func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) },
			[]string{"no such directory; run make certs DIR=$DIR, or give the directory that has ca.pem, worker.pem and worker-key.pem"},
		},
		{"a file", identity.Worker, func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			put(t, "", dir)
		}, []string{"no such directory; run make certs"}},
		{"nothing there", identity.Worker, func(t *testing.T, dir string) {
			remove(t, dir, "ca.pem")
			remove(t, dir, "worker.pem")
			remove(t, dir, "worker-key.pem")
		}, []string{"ca.pem is missing; run make certs", "worker.pem is missing; ", "worker-key.pem is missing; "}},
		{
			"client without authority", identity.Client, func(t *testing.T, dir string) { remove(t, dir, "ca.pem") },
			[]string{"ca.pem is missing; "},
		},
		{
			"client without key", identity.Client, func(t *testing.T, dir string) { remove(t, dir, "client-key.pem") },
			[]string{"client-key.pem is missing; "},
		},
		{"a directory for a file", identity.Worker, func(t *testing.T, dir string) {
			remove(t, dir, "worker.pem")
			require.NoError(t, os.Mkdir(filepath.Join(dir, "worker.pem"), 0o700))
		}, []string{"worker.pem cannot be read ("}},
		{"another key", identity.Worker, func(t *testing.T, dir string) {
			put(t, get(t, dir, "director-key.pem"), dir, "worker-key.pem")
		}, []string{"worker.pem and worker-key.pem are not a certificate and its key ("}},
		{"half a certificate", identity.Worker, func(t *testing.T, dir string) {
			put(t, get(t, dir, "worker.pem")[:100], dir, "worker.pem")
		}, []string{"worker.pem and worker-key.pem are not a certificate and its key ("}},
		{"of another role", identity.Worker, func(t *testing.T, dir string) {
			put(t, get(t, dir, "director.pem"), dir, "worker.pem")
			put(t, get(t, dir, "director-key.pem"), dir, "worker-key.pem")
		}, []string{`worker.pem is a certificate for ["director.connswap"], not for worker.connswap; run make certs`}},
		{
			"empty authority", identity.Worker, func(t *testing.T, dir string) { put(t, "", dir, "ca.pem") },
			[]string{"ca.pem has no certificate in PEM form; "},
		},
		{"broken authority", identity.Worker, func(t *testing.T, dir string) {
			put(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), dir, "ca.pem")
		}, []string{"ca.pem has a certificate that cannot be read ("}},
		{"of another authority", identity.Worker, func(t *testing.T, dir string) {
			other := filepath.Join(dir, "other")
			ensure(t, other)
			put(t, get(t, other, "ca.pem"), dir, "ca.pem")
		}, []string{"worker.pem does not come from ca.pem (x509: certificate signed by unknown authority"}},
		{
			"expired", identity.Worker, func(_ *testing.T, _ string) { time.Sleep(year + day) },
			[]string{"worker.pem expired at 2000-12-31T00:00:00Z; run make certs"},
		},
		{
			"expired for long", identity.Worker, func(_ *testing.T, _ string) { time.Sleep(11 * year) },
			[]string{"ca.pem expired at 2009-12-29T00:00:00Z; "},
		},
		{"not yet valid", identity.Worker, func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			_, err := identity.EnsureDevelopment(dir, time.Now().Add(day))
			require.NoError(t, err)
		}, []string{"ca.pem is not valid before 2000-01-01T23:00:00Z; set this machine's clock (2000-01-01T00:00:00Z), or run make certs"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "certs")
				ensure(t, dir)
				test.spoil(t, dir)
				_, err := identity.FromDir(dir, test.role)
				var problems *config.Problems
				require.ErrorAs(t, err, &problems)
				lines := strings.Split(err.Error(), "\n")
				require.Len(t, lines, len(test.want), err)
				for i, want := range test.want {
					want = strings.ReplaceAll(want, "$DIR", dir)
					require.True(t, strings.HasPrefix(lines[i], `CONNECTION_SWAP_TLS_DIR="`+dir+`": `+want), lines[i])
				}
			})
		})
	}
}

func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	ensure(t, dir)
	require.NoError(t, os.Chmod(filepath.Join(dir, "worker-key.pem"), 0))
	_, err := identity.FromDir(dir, identity.Worker)
	require.ErrorContains(t, err, "worker-key.pem may not be read by user ")
}

func TestClientNeedsNoCertificate(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir)
	remove(t, dir, "client.pem")
	remove(t, dir, "client-key.pem")
	src, err := identity.FromDir(dir, identity.Client)
	require.NoError(t, err)
	cert, err := src.Certificate()
	require.NoError(t, err)
	require.Nil(t, cert)
	director, err := identity.FromDir(dir, identity.Director)
	require.NoError(t, err)
	out := handshake(t, identity.ClientTLS(src, user, identity.Director), port(director))
	require.NoError(t, out.client)
	require.NoError(t, out.server)
}

// A bundle of two authorities, and a chain with one between, are fine.
func TestChain(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	ensure(t, dir)
	ensure(t, other)
	put(t, get(t, other, "ca.pem")+get(t, dir, "ca.pem"), dir, "ca.pem")
	between(t, dir, "director")
	director, err := identity.FromDir(dir, identity.Director)
	require.NoError(t, err)
	worker, err := identity.FromDir(dir, identity.Worker)
	require.NoError(t, err)
	out := handshake(t, identity.ClientTLS(worker, mgmt, identity.Director), port(director))
	require.NoError(t, out.client)
	require.NoError(t, out.server)
}

// between replaces a role's certificate by one of an intermediate authority. The development authority does
// not allow one (its path length is zero), so the bundle gets a further root.
func between(t *testing.T, dir, role string) {
	t.Helper()
	var issuer *x509.Certificate
	var issuerKey ed25519.PrivateKey
	var chain string
	for i, name := range []string{"root", "intermediate", role} {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: i < 2, BasicConstraintsValid: true,
		}
		if i == 2 {
			template.DNSNames = []string{role + ".connswap"}
		}
		if issuer == nil {
			issuer, issuerKey = template, private
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, issuerKey)
		require.NoError(t, err)
		issuer, err = x509.ParseCertificate(der)
		require.NoError(t, err)
		issuerKey = private
		encoded := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		if i == 0 {
			put(t, get(t, dir, "ca.pem")+encoded, dir, "ca.pem")
			continue
		}
		chain = encoded + chain
		key, err := x509.MarshalPKCS8PrivateKey(private)
		require.NoError(t, err)
		put(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})), dir, role+"-key.pem")
	}
	put(t, chain, dir, role+".pem")
}

func certificate(t *testing.T, src identity.Source) *tls.Certificate {
	t.Helper()
	cert, err := src.Certificate()
	require.NoError(t, err)
	return cert
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ensure(t, dir)
		var reports []error
		director, err := identity.FromDir(dir, identity.Director, identity.OnReload(func(err error) { reports = append(reports, err) }))
		require.NoError(t, err)
		worker, err := identity.FromDir(dir, identity.Worker)
		require.NoError(t, err)
		server, client := port(director), identity.ClientTLS(worker, mgmt, identity.Director)
		first := certificate(t, director)

		time.Sleep(time.Hour)
		require.Same(t, first, certificate(t, director), "nothing has changed")

		// The new certificate is served from the next handshake on.
		remove(t, dir, "director.pem")
		require.True(t, ensure(t, dir))
		second := certificate(t, director)
		require.NotEqual(t, first.Leaf.SerialNumber, second.Leaf.SerialNumber)
		require.Equal(t, []error{nil}, reports)
		require.NoError(t, handshake(t, client, server).client)

		// A broken file changes nothing and is told once.
		put(t, "half", dir, "director.pem")
		for range 3 {
			time.Sleep(time.Second)
			require.Same(t, second, certificate(t, director))
		}
		require.Len(t, reports, 2)
		require.ErrorContains(t, reports[1], "director.pem and director-key.pem are not a certificate and its key")

		// So does a missing one.
		remove(t, dir, "director.pem")
		time.Sleep(time.Second)
		require.Same(t, second, certificate(t, director))
		require.Len(t, reports, 3)
		require.ErrorContains(t, reports[2], "director.pem is missing")

		// A new authority: configurations made before follow at both ends, once both have looked.
		remove(t, dir, "ca-key.pem")
		require.True(t, ensure(t, dir))
		time.Sleep(time.Second)
		out := handshake(t, client, server)
		require.NoError(t, out.client)
		require.NoError(t, out.server)
		require.Len(t, reports, 4)
		require.NoError(t, reports[3])
		roots, err := worker.Roots()
		require.NoError(t, err)
		_, err = first.Leaf.Verify(x509.VerifyOptions{Roots: roots})
		require.Error(t, err)
	})
}

// TestRenewalWithManyHandshakes: none that begins after a renewal gets what was there before, however many begin at once.
func TestRenewalWithManyHandshakes(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir)
	src, err := identity.FromDir(dir, identity.Worker)
	require.NoError(t, err)
	for range 20 {
		old := certificate(t, src)
		remove(t, dir, "worker.pem")
		ensure(t, dir)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if cert, err := src.Certificate(); err != nil || cert == old {
					t.Error("the old one", err)
				}
			})
		}
		all.Wait()
	}
}

// TestRenewalKeepsTheTime: a copy that keeps times and sizes is another file.
func TestRenewalKeepsTheTime(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir)
	src, err := identity.FromDir(dir, identity.Worker)
	require.NoError(t, err)
	old := certificate(t, src)
	other := t.TempDir()
	for name := range map[string]bool{"ca.pem": true, "ca-key.pem": true} {
		put(t, get(t, dir, name), other, name)
	}
	ensure(t, other)
	for _, name := range []string{"worker-key.pem", "worker.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		put(t, get(t, other, name), dir, name) // in place
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), info.ModTime(), info.ModTime()))
	}
	require.NotEqual(t, old.Leaf.SerialNumber, certificate(t, src).Leaf.SerialNumber)
}

// TestRenewalByLink: Kubernetes puts new files into a new directory, to which it then turns a link.
func TestRenewalByLink(t *testing.T) {
	dir := t.TempDir()
	version := func(name string) {
		ensure(t, filepath.Join(dir, name))
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..new")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	}
	version("..1")
	for _, name := range []string{"ca.pem", "worker.pem", "worker-key.pem"} {
		require.NoError(t, os.Symlink("..data/"+name, filepath.Join(dir, name)))
	}
	src, err := identity.FromDir(dir, identity.Worker)
	require.NoError(t, err)
	old := certificate(t, src)
	version("..2")
	require.NotEqual(t, old.Leaf.SerialNumber, certificate(t, src).Leaf.SerialNumber)
}

// TestReloadNow: who asks for it is told what became of it.
func TestReloadNow(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir)
	src, err := identity.FromDir(dir, identity.Worker)
	require.NoError(t, err)
	changed, err := src.Reload()
	require.NoError(t, err)
	require.False(t, changed)
	remove(t, dir, "worker.pem")
	_, err = src.Reload()
	require.ErrorContains(t, err, "worker.pem is missing")
	ensure(t, dir)
	changed, err = src.Reload()
	require.NoError(t, err)
	require.True(t, changed)
}

// TestNoFile: what might never end is not read.
func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir)
	src, err := identity.FromDir(dir, identity.Worker)
	require.NoError(t, err)
	old := certificate(t, src)
	remove(t, dir, "worker.pem")
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "worker.pem"), 0o600))
	require.Same(t, old, certificate(t, src))
	_, err = src.Reload()
	require.ErrorContains(t, err, "worker.pem cannot be read (it is not a file)")
	remove(t, dir, "worker.pem")
	put(t, strings.Repeat("x", 2<<20), dir, "worker.pem")
	_, err = src.Reload()
	require.ErrorContains(t, err, "it has 2097152 bytes")
}

// What is not valid yet is taken up when it is, without a further change of the files.
func TestReloadWhenValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ensure(t, dir)
		src, err := identity.FromDir(dir, identity.Worker)
		require.NoError(t, err)
		first := certificate(t, src)
		require.NoError(t, os.RemoveAll(dir))
		_, err = identity.EnsureDevelopment(dir, time.Now().Add(day))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Same(t, first, certificate(t, src))
		time.Sleep(day)
		require.NotSame(t, first, certificate(t, src))
	})
}

// Handshakes during changes have one consistent set or the other.
func TestReloadWhileInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ensure(t, dir)
		src, err := identity.FromDir(dir, identity.Worker)
		require.NoError(t, err)
		var users sync.WaitGroup
		for range 4 {
			users.Go(func() {
				for range 50 {
					cert, err := src.Certificate()
					if err != nil || cert == nil {
						t.Error("no certificate", err)
					}
					if _, err := src.Roots(); err != nil {
						t.Error(err)
					}
					time.Sleep(300 * time.Millisecond)
				}
			})
		}
		for range 10 {
			time.Sleep(time.Second)
			remove(t, dir, "ca-key.pem")
			ensure(t, dir)
		}
		users.Wait()
	})
}
