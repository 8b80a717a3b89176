// Package keys says who may use a director, and how much of it. All that is known of a user goes by the name of his key: one who
// has two, of which one shall replace the other, is still the same.
package keys

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/yamlfile"
)

// Keys are those of a file of theirs, or of a section of another one. A nil Keys is for a director without one: it lets everybody in. It is safe for concurrent use, and
// whoever asks it waits for no file.
type Keys struct {
	log *zap.Logger

	known atomic.Pointer[[]credential]

	mu       sync.Mutex
	accounts map[string]*account // by name; also those that are not in the file any more: what they used stays known
}

// credential is one that is let in.
type credential struct {
	hash    [sha256.Size]byte
	account *account
}

// New returns keys that let nobody in, until Take is called.
func New(log *zap.Logger) *Keys {
	k := &Keys{log: log, accounts: map[string]*account{}}
	k.known.Store(&[]credential{})
	return k
}

// Read returns the keys of a file. The error says which line of it is wrong, and what would be right. read is told of each time that
// the file was new later; it is optional.
func Read(path string, log *zap.Logger, read func(error)) (k *Keys, file *yamlfile.File, err error) {
	k = New(log)
	file, err = yamlfile.Open(path, yamlfile.Deps{
		Log: log, Read: read, Kept: "the file of keys cannot be used, those that were read before stay",
		Take: func(content []byte) error {
			entries, err := parse(path, content)
			if err == nil {
				k.Take(entries, path)
			}
			return err
		},
	})
	return k, file, err
}

// Take makes the entries of a file those that count. Who is not among them is out.
func (k *Keys) Take(entries Entries, path string) {
	k.take(entries.list)
	k.log.Info("keys were read", zap.String("file", path), zap.Int("names", len(entries.list)))
}

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
