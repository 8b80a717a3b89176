package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// longestKey is more than any key has, in bytes.
const longestKey = 1024

// ReadKey returns the key that is in a file; none if path is empty. The error has nothing of it.
func ReadKey(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot be read (%w); give a file with a key", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	content, err := io.ReadAll(io.LimitReader(file, longestKey+1))
	if err != nil {
		return "", fmt.Errorf("cannot be read (%w); give a file with a key", err)
	}
	key := strings.TrimSpace(string(content))
	if key == "" || len(content) > longestKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("has no key; give a file with one line of up to %d letters, digits and signs, without spaces", longestKey)
	}
	return key, nil
}
