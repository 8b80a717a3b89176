package identity_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/identity"
)

// files maps the files of a directory to their contents.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	content := map[string]string{}
	for _, entry := range entries {
		content[entry.Name()] = get(t, dir, entry.Name())
	}
	return content
}

// changes lists the files that differ.
func changes(before, after map[string]string) []string {
	changed := []string{}
	for name := range after {
		if before[name] != after[name] {
			changed = append(changed, name)
		}
	}
	return changed
}

func TestEnsureDevelopment(t *testing.T) {
	every := []string{
		".lock", "ca.pem", "ca-key.pem", "director.pem", "director-key.pem", "worker.pem", "worker-key.pem",
		"client.pem", "client-key.pem", "operator.pem", "operator-key.pem",
	}
	pairs := every[3:]
	tests := []struct {
		name   string
		happen func(t *testing.T, dir string)
		want   []string // the files that are made anew
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"time, but not much", func(*testing.T, string) { time.Sleep(year - 31*day) }, nil},
		{"nearly all the time", func(*testing.T, string) { time.Sleep(year - 29*day) }, pairs},
		{"two years", func(*testing.T, string) { time.Sleep(2 * year) }, pairs},
		{"nine years and a day", func(*testing.T, string) { time.Sleep(9*year + day) }, every[1:]},
		{"a clock set back", func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			_, err := identity.EnsureDevelopment(dir, time.Now().Add(year))
			require.NoError(t, err)
		}, every[1:]},
		{"a certificate lost", func(t *testing.T, dir string) { remove(t, dir, "worker.pem") }, []string{"worker.pem", "worker-key.pem"}},
		{"a key lost", func(t *testing.T, dir string) { remove(t, dir, "worker-key.pem") }, []string{"worker.pem", "worker-key.pem"}},
		{"a certificate of another role", func(t *testing.T, dir string) {
			put(t, get(t, dir, "client.pem"), dir, "worker.pem")
			put(t, get(t, dir, "client-key.pem"), dir, "worker-key.pem")
		}, []string{"worker.pem", "worker-key.pem"}},
		{"authority lost", func(t *testing.T, dir string) { remove(t, dir, "ca.pem") }, every[1:]},
		{"authority broken", func(t *testing.T, dir string) { put(t, "half", dir, "ca.pem") }, every[1:]},
		{"authority's key lost", func(t *testing.T, dir string) { remove(t, dir, "ca-key.pem") }, every[1:]},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "deep", "certs")
				require.True(t, ensure(t, dir))
				test.happen(t, dir)
				before := files(t, dir)
				require.Equal(t, test.want != nil, ensure(t, dir))
				after := files(t, dir)
				require.ElementsMatch(t, test.want, changes(before, after))
				require.Len(t, after, len(every), "nothing else is left behind")
				require.False(t, ensure(t, dir))
				for _, role := range []identity.Role{identity.Director, identity.Worker, identity.Client, identity.Operator} {
					src, err := identity.FromDir(dir, role)
					require.NoError(t, err)
					require.NotNil(t, certificate(t, src))
				}
			})
		})
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	ensure(t, dir)
	wantDir, wantKey := fs.FileMode(0o700), fs.FileMode(0o600)
	if os.Geteuid() == 0 {
		wantDir, wantKey = 0o755, 0o644
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, wantDir, info.Mode().Perm())
	for name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		want := fs.FileMode(0o644)
		switch {
		case name == "ca-key.pem":
			want = 0o600
		case strings.HasSuffix(name, "-key.pem"):
			want = wantKey
		}
		require.Equal(t, want, info.Mode().Perm(), name)
	}
}

func TestForeignAuthorityStays(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir)
	put(t, "", dir, "ca.pem")
	between(t, dir, "director") // leaves a ca.pem that begins with a certificate of "root"
	before := files(t, dir)
	_, err := identity.EnsureDevelopment(dir, time.Now())
	require.ErrorContains(t, err, `ca.pem is of "CN=root", not made for development; remove it or choose another directory`)
	require.Empty(t, changes(before, files(t, dir)))
}

func TestNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	put(t, "", file)
	_, err := identity.EnsureDevelopment(filepath.Join(file, "certs"), time.Now())
	require.ErrorContains(t, err, "development certificates: ")
	require.ErrorContains(t, err, file)
}

// Of many that start at once one makes the certificates.
func TestEnsureAtOnce(t *testing.T) {
	dir := t.TempDir()
	made := make(chan bool, 8)
	var starters sync.WaitGroup
	for range cap(made) {
		starters.Go(func() {
			changed, err := identity.EnsureDevelopment(dir, time.Now())
			if err != nil {
				t.Error(err)
			}
			made <- changed
			if _, err := identity.FromDir(dir, identity.Worker); err != nil {
				t.Error(err)
			}
		})
	}
	starters.Wait()
	close(made)
	makers := 0
	for changed := range made {
		if changed {
			makers++
		}
	}
	require.Equal(t, 1, makers)
}

// TestSplit: each role finds what it needs, and nobody else's key; what is renewed is handed on.
func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, want := range []bool{true, false} {
			changed, err := identity.EnsureSplit(dir, time.Now())
			require.NoError(t, err)
			require.Equal(t, want, changed)
		}
		files := map[string][]string{}
		for _, owner := range []string{"director", "worker", "client"} {
			entries, err := os.ReadDir(filepath.Join(dir, owner))
			require.NoError(t, err)
			for _, e := range entries {
				files[owner] = append(files[owner], e.Name())
			}
		}
		require.Equal(t, map[string][]string{
			"director": {"ca.pem", "director-key.pem", "director.pem"},
			"worker":   {"ca.pem", "worker-key.pem", "worker.pem"},
			"client":   {"ca.pem", "client-key.pem", "client.pem", "operator-key.pem", "operator.pem"},
		}, files)
		worker, err := identity.FromDir(filepath.Join(dir, "worker"), identity.Worker)
		require.NoError(t, err)
		director, err := identity.FromDir(filepath.Join(dir, "director"), identity.Director)
		require.NoError(t, err)
		require.NoError(t, handshake(t, identity.ClientTLS(worker, mgmt, identity.Director), port(director)).client)
		old := certificate(t, worker)
		time.Sleep(340 * day)
		changed, err := identity.EnsureSplit(dir, time.Now())
		require.NoError(t, err)
		require.True(t, changed)
		require.NotEqual(t, old.Leaf.SerialNumber, certificate(t, worker).Leaf.SerialNumber)
	})
}
