package identity

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// FromDir returns the material of a role in a directory: ca.pem, <role>.pem and <role>-key.pem. A client may
// have ca.pem alone. The error is a *config.Problems.
//
// Changed files are taken up at the next handshake that is a second or more after the last look. What cannot
// be used (half written, expired, the key of another certificate) is left alone, and the old material stays.
func FromDir(dir string, role Role, options ...Option) (Source, error) {
	d := &directory{dir: dir, role: role, reloaded: func(error) {}, lastLook: time.Now()}
	for _, option := range options {
		option(d)
	}
	d.seen = d.look()
	initial, err := read(dir, role, d.lastLook)
	if err != nil {
		return nil, err
	}
	d.current.Store(initial)
	return d, nil
}

// Option is for FromDir.
type Option func(*directory)

// OnReload has fn called when changed files were taken up (nil), or could not be (the reason, once for each).
// fn is called within a handshake.
func OnReload(fn func(err error)) Option {
	return func(d *directory) { d.reloaded = fn }
}

// directory is a Source that follows the files of a directory. Whoever asks for the material looks at the files, if it is
// time for that and nobody else does; so it owns no goroutine, and no handshake waits for another one's look.
type directory struct {
	dir      string
	role     Role
	reloaded func(error)
	current  atomic.Pointer[material]

	looking  sync.Mutex // held by the one goroutine that looks; nobody waits for it
	lastLook time.Time
	seen     stamps // of the files that current was read from
	failure  string // the reason that was reported last
}

func (d *directory) Certificate() (*tls.Certificate, error) { return d.fresh().cert, nil }
func (d *directory) Roots() (*x509.CertPool, error)         { return d.fresh().roots, nil }

// fresh returns the current material, after a look at the files if it is time for one.
func (d *directory) fresh() *material {
	if d.looking.TryLock() {
		defer d.looking.Unlock()
		if now := time.Now(); now.Sub(d.lastLook) >= lookEvery {
			d.lastLook = now
			d.reload(now)
		}
	}
	return d.current.Load()
}

// reload reads the files if they are not the ones of current. After a failure it tries again at each look:
// what is not valid yet becomes so without any change of the files.
func (d *directory) reload(now time.Time) {
	found := d.look() // before reading: a change while we read is seen at the next look
	if found.same(d.seen) {
		return
	}
	next, err := read(d.dir, d.role, now)
	if err != nil {
		if err.Error() != d.failure {
			d.failure = err.Error()
			d.reloaded(err)
		}
		return
	}
	d.seen, d.failure = found, ""
	d.current.Store(next)
	d.reloaded(nil)
}

// stamps tell a file from its successor; nil for a file that is not there.
type stamps [3]os.FileInfo

// look returns the stamps of the files as they are now.
func (d *directory) look() stamps {
	var found stamps
	for i, name := range []string{caFile, certFile(d.role), keyFile(d.role)} {
		if info, err := os.Stat(filepath.Join(d.dir, name)); err == nil {
			found[i] = info
		}
	}
	return found
}

// same reports whether no file has been replaced or written.
func (s stamps) same(other stamps) bool {
	for i := range s {
		a, b := s[i], other[i]
		if a == nil || b == nil {
			if a != b {
				return false
			}
			continue
		}
		if !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
			return false
		}
	}
	return true
}
