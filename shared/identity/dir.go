package identity

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	// lookPatience is how long a handshake waits for the files, where the file system is slow; then it goes on with what
	// there was.
	lookPatience = 500 * time.Millisecond
	// retryEvery is how often changed files that cannot be used are read again: what is not valid yet becomes so.
	retryEvery = time.Second
)

// FromDir returns the material of a role in a directory: ca.pem, <role>.pem and <role>-key.pem. A client may
// have ca.pem alone. The error is a *config.Problems.
//
// Changed files are taken up at the next handshake: none that begins after the change gets what was there before. What
// cannot be used (half written, expired, the key of another certificate) is left alone, and the old material stays.
func FromDir(dir string, role Role, options ...Option) (*Dir, error) {
	d := &Dir{dir: dir, role: role, reloaded: func(error) {}, looking: make(chan struct{}, 1)}
	for _, option := range options {
		option(d)
	}
	d.seen = d.look()
	initial, err := read(dir, role, time.Now())
	if err != nil {
		return nil, err
	}
	d.current.Store(initial)
	return d, nil
}

// Option is for FromDir.
type Option func(*Dir)

// OnReload has fn called when changed files were taken up (nil), or could not be (the reason, once for each).
// fn is called within a handshake.
func OnReload(fn func(err error)) Option {
	return func(d *Dir) { d.reloaded = fn }
}

// Dir is a Source that follows the files of a directory. Whoever asks for the material looks at the files, one after the
// other; so it owns no goroutine, but one while it looks.
type Dir struct {
	dir      string
	role     Role
	reloaded func(error)
	current  atomic.Pointer[material]

	looking chan struct{} // capacity 1: full while somebody looks, who has what follows
	seen    stamps        // of the files that current was read from
	failed  stamps        // of the files that could not be used
	failure string        // the reason that was reported last
	tried   time.Time     // when they were read last
}

var _ Source = (*Dir)(nil)

// Certificate is part of Source.
func (d *Dir) Certificate() (*tls.Certificate, error) { return d.fresh().cert, nil }

// Roots is part of Source.
func (d *Dir) Roots() (*x509.CertPool, error) { return d.fresh().roots, nil }

// Reload looks at the files at once, and returns why they cannot be used. changed says that they are others than those
// in use so far.
func (d *Dir) Reload() (changed bool, err error) {
	before := d.current.Load()
	now := d.fresh()
	if now != before {
		return true, nil
	}
	_, err = read(d.dir, d.role, time.Now())
	return false, err
}

// fresh returns the material of this moment.
func (d *Dir) fresh() *material {
	late := time.NewTimer(lookPatience)
	defer late.Stop()
	select {
	case d.looking <- struct{}{}:
	case <-late.C:
		return d.current.Load()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		news, err := d.reload(time.Now())
		<-d.looking
		if news { // afterwards, so that whoever is told may ask for the material
			d.reloaded(err)
		}
	}()
	select {
	case <-done:
	case <-late.C:
	}
	return d.current.Load()
}

// reload reads the files if they are not the ones of current. It reports whether there is something to tell: that they were
// taken up, or why not. d.looking is held.
func (d *Dir) reload(now time.Time) (news bool, err error) {
	found := d.look() // before reading: a change while we read is seen at the next look
	if found.same(d.seen) || !d.failed.none() && found.same(d.failed) && now.Sub(d.tried) < retryEvery {
		return false, nil
	}
	d.tried = now
	next, err := read(d.dir, d.role, now)
	if err != nil {
		news = err.Error() != d.failure
		d.failed, d.failure = found, err.Error()
		return news, err
	}
	d.seen, d.failed, d.failure = found, stamps{}, ""
	d.current.Store(next)
	return true, nil
}

// stamps tell a file from its successor; nil for a file that is not there.
type stamps [3]os.FileInfo

// none reports whether there is not one file.
func (s stamps) none() bool { return s == stamps{} }

// look returns the stamps of the files as they are now.
func (d *Dir) look() stamps {
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
		if !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) || changed(a) != changed(b) {
			return false
		}
	}
	return true
}
