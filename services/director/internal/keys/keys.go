// Package keys says who may use a director, and how much of it. All that is known of a user goes by the name of his key: one who
// has two, of which one shall replace the other, is still the same.
package keys

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	maxFile   = 1 << 20
	lookEvery = time.Second
)

// Keys are those of a file. A nil Keys is for a director without one: it lets everybody in. It is safe for concurrent use, and
// whoever asks it waits for no file.
type Keys struct {
	path string
	log  *zap.Logger

	known atomic.Pointer[[]credential]

	mu       sync.Mutex
	accounts map[string]*account // by name; also those that are not in the file any more: what they used stays known

	// Owned by Watch, once that runs.
	seen    []byte // what was read last
	refused string // what was logged last, if the file cannot be used
}

// credential is one that is let in.
type credential struct {
	hash    [sha256.Size]byte
	account *account
}

// Read reads a file. The error says which line of it is wrong, and what would be right.
func Read(path string, log *zap.Logger) (*Keys, error) {
	k := &Keys{path: path, log: log, accounts: map[string]*account{}}
	return k, k.look()
}

// Watch looks at the file every second, until ctx ends, and takes up what has changed. A file that cannot be used changes
// nothing, and is logged.
func (k *Keys) Watch(ctx context.Context) {
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		if err := k.look(); err == nil {
			k.refused = ""
		} else if text := err.Error(); text != k.refused {
			k.refused = text
			k.log.Warn("the file of keys cannot be used, those that were read before stay", zap.Error(err))
		}
	}
}

// look reads the file, and takes up what is new.
func (k *Keys) look() error {
	content, err := readFile(k.path)
	if err != nil {
		return err
	}
	if k.seen != nil && bytes.Equal(content, k.seen) {
		return nil // it has been said what is wrong with it, if something is
	}
	k.seen = content
	entries, err := parse(content)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.take(entries)
	k.log.Info("keys were read", zap.String("file", k.path), zap.Int("names", len(entries)))
	return nil
}

// readFile reads a file of ordinary size.
func readFile(path string) ([]byte, error) {
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

// take makes the entries of a file those that count. Who is not among them is out.
func (k *Keys) take(entries []entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var known []credential
	for _, e := range entries {
		a := k.accounts[e.name]
		if a == nil {
			a = &account{live: map[*Grant]struct{}{}}
			k.accounts[e.name] = a
		}
		a.set(e)
		for _, hash := range e.hashes {
			known = append(known, credential{hash, a})
		}
	}
	k.known.Store(&known)
}

// Authenticate returns the key that a bearer token is; false if it is none. Without keys it returns nil, which may do everything.
// How long it takes tells nothing about the keys.
func (k *Keys) Authenticate(token string) (*Key, bool) {
	if k == nil {
		return nil, true
	}
	key := &Key{keys: k, hash: sha256.Sum256([]byte(token))}
	for _, c := range *k.known.Load() { // all: no stopping at the first
		if subtle.ConstantTimeCompare(key.hash[:], c.hash[:]) == 1 {
			key.account = c.account
		}
	}
	return key, key.account != nil
}

// Usage is what all that came with the key of a name took so far.
type Usage struct {
	Name                           string
	Requests                       uint64
	PromptTokens, CompletionTokens uint64
}

// Usage returns that of each key, by name. What runs is in it as far as it has got.
func (k *Keys) Usage() []Usage {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	accounts := slices.Collect(maps.Values(k.accounts))
	k.mu.Unlock()
	all := make([]Usage, len(accounts))
	for i, a := range accounts {
		all[i] = a.total()
	}
	slices.SortFunc(all, func(a, b Usage) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
