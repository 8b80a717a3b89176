package yamlfile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	maxFile   = 1 << 20
	lookEvery = time.Second
)

// File is one that is looked at again and again. Status may be called from any goroutine.
type File struct {
	path  string
	deps  Deps
	tried string // the last error that was told; owned by Watch

	// Owned by Open, then by Watch.
	seen  []byte // what was read last
	wrong error  // with that

	mu     sync.Mutex
	status Status
}

// Deps is what a File needs from outside.
type Deps struct {
	Log *zap.Logger
	// Take makes what a file says count, all of it or, with an error, nothing. Watch calls it on its own goroutine.
	Take func(content []byte) error
	// Kept is what is logged where a file cannot be used, and what it said before stays.
	Kept string
	// Read is told of each time that the file was new after the start, and what was wrong with it. Optional.
	Read func(err error)
}

// Status is a file as it is shown to people and programs.
type Status struct {
	Path   string    `json:"path"`
	Loaded time.Time `json:"loaded"`          // when what counts now was read
	Error  string    `json:"error,omitempty"` // why the file, as it is now, cannot be used
}

// Open reads a file. The error is that of Take, or says why the file cannot be read.
func Open(path string, deps Deps) (*File, error) {
	if deps.Read == nil {
		deps.Read = func(error) {}
	}
	f := &File{path: path, deps: deps, status: Status{Path: path}}
	_, err := f.look()
	return f, err
}

// Watch looks at the file every second, until ctx ends, and takes up what has changed. A file that cannot be used changes
// nothing, and is told once.
func (f *File) Watch(ctx context.Context) {
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		taken, err := f.look()
		if err != nil && err.Error() != f.tried {
			f.tried = err.Error()
			f.deps.Log.Warn(f.deps.Kept, zap.Error(err))
			f.deps.Read(err)
		}
		if err == nil {
			f.tried = ""
		}
		if taken {
			f.deps.Read(nil)
		}
	}
}

// Status returns how it is with the file.
func (f *File) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// look reads the file, and reports whether something new was taken up; the error says what is wrong with what is there now.
func (f *File) look() (taken bool, err error) {
	content, err := read(f.path)
	if err == nil && (f.seen == nil || !bytes.Equal(content, f.seen)) {
		f.seen, f.wrong = content, f.deps.Take(content)
		taken = f.wrong == nil
	}
	if err == nil {
		err = f.wrong
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Error = ""
	if err != nil {
		f.status.Error = err.Error()
	}
	if taken {
		f.status.Loaded = time.Now()
	}
	return taken, err
}

// read reads a file of ordinary size.
func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return content, err
}
