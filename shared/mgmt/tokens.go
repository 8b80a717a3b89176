package mgmt

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode"

	"go.uber.org/zap"
)

const (
	shortestToken = 16
	maxTokens     = 1000
	maxTokenFile  = 1 << 20
	lookForTokens = time.Second // how often the file is looked at, at most
)

// Tokens are operators' bearer tokens, from a file with one a line. Empty lines, and those that begin with #, count for
// nothing. A file that changes is read again; so who is taken out of it is out. It is safe for concurrent use.
type Tokens struct {
	path string
	log  *zap.Logger

	mu     sync.Mutex
	hashes [][sha256.Size]byte
	seen   os.FileInfo // nil where the file could not be read
	looked time.Time
}

// ReadTokens reads a file. The error says what is wrong with it; the first one is the last: later on, lines that are wrong
// are logged and left out.
func ReadTokens(path string, log *zap.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log, looked: time.Now()}
	if err := t.read(); err != nil {
		return nil, err
	}
	return t, nil
}

// check returns a name for the token that is not a secret. It takes as long for one that is wrong.
func (t *Tokens) check(token string) (name string, ok bool) {
	hash := sha256.Sum256([]byte(token))
	found := 0
	for _, other := range t.fresh() {
		found |= subtle.ConstantTimeCompare(hash[:], other[:])
	}
	again := sha256.Sum256(hash[:])
	return "token " + hex.EncodeToString(again[:]), found == 1
}

// fresh returns the hashes of the tokens, after a look at the file if it is time for one.
func (t *Tokens) fresh() [][sha256.Size]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.looked) >= lookForTokens {
		t.looked = now
		info, err := os.Stat(t.path)
		if err != nil || t.seen == nil || !os.SameFile(info, t.seen) || info.Size() != t.seen.Size() || !info.ModTime().Equal(t.seen.ModTime()) {
			t.reload()
		}
	}
	return t.hashes
}

// reload reads the file again. t.mu is held.
func (t *Tokens) reload() {
	had := t.seen != nil
	err := t.read()
	switch {
	case err == nil:
		t.log.Info("operators' tokens read again", zap.Int("tokens", len(t.hashes)))
	case had || t.seen != nil: // and not at each look
		t.log.Warn("operators' tokens", zap.Error(err), zap.Int("tokens", len(t.hashes)))
	}
}

// read makes the file's good tokens the ones that count, none if there is no file. The error says what is wrong.
func (t *Tokens) read() error {
	t.hashes, t.seen = nil, nil
	file, err := os.Open(t.path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was read only
	if t.seen, err = file.Stat(); err != nil {
		return err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxTokenFile))
	if err != nil {
		return err
	}
	t.hashes, err = parseTokens(content)
	if err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	return nil
}

// parseTokens returns the hashes of the good lines, and an error that names the first bad one.
func parseTokens(content []byte) (hashes [][sha256.Size]byte, bad error) {
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, maxTokenFile+1)
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		err := checkToken(line)
		if err == nil && len(hashes) == maxTokens {
			err = fmt.Errorf("more than %d tokens", maxTokens)
		}
		if err != nil {
			if bad == nil {
				bad = fmt.Errorf("line %d: %w", number, err)
			}
			continue
		}
		hashes = append(hashes, sha256.Sum256(line))
	}
	return hashes, errors.Join(bad, lines.Err())
}

func checkToken(token []byte) error {
	if len(token) < shortestToken {
		return fmt.Errorf("a token has %d characters or more, so that nobody guesses it; `openssl rand -hex 32` makes one", shortestToken)
	}
	if bytes.ContainsFunc(token, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' }) {
		return errors.New("a token has no spaces, and only what can be printed in ASCII")
	}
	return nil
}
