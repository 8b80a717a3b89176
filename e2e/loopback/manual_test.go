package loopback

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestManual runs the curl commands of docs/OPERATIONS.md as they stand there, for a director whose port is another one.
func TestManual(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	manual, err := os.ReadFile("../../docs/OPERATIONS.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(manual), "\n## Over HTTP\n")
	require.True(t, found)
	_, script, found := strings.Cut(section, "\n```sh\n")
	require.True(t, found)
	script, _, found = strings.Cut(script, "\n```\n")
	require.True(t, found)

	tokens := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte("0123456789abcdef0123456789abcdef\n"), 0o600))
	c := up(t, "CONNECTION_SWAP_DIRECTOR_OPERATOR_TOKENS_FILE="+tokens)
	require.NoError(t, os.Symlink(tokens, filepath.Join(c.certs, "token")))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for range c.workers {
		c.director.line(t, "worker connected")
	}
	c.director.follow()

	// Each command has to succeed, and its answer stands below it.
	script = strings.ReplaceAll(script, "localhost:61001", c.http["director"])
	prelude := `curl() { echo "== $*"; command curl --silent --show-error --fail-with-body "$@"; }` + "\n"
	shell := exec.CommandContext(ctx, "sh", "-eu")
	shell.Dir, shell.Stdin = c.certs, strings.NewReader(prelude+script)
	output, err := shell.CombinedOutput()
	require.NoError(t, err, string(output))
	answers := strings.Split(string(output), "== ")[1:]
	for i, want := range []string{
		"ok\n", `"openapi": "3.1.0"`, `"director": "director"`, `"worker": "worker-b"`, `"sessions": []`,
		`{"remaining":0,"moved":0,"failed":0}`, `worker-a is back in use`, `{"remaining":0,"moved":0,"failed":0}`,
		"event: result\ndata: {\"remaining\":0,\"moved\":0,\"failed\":0}\n", `worker-b is back in use`,
	} {
		require.Contains(t, answers[i], want)
	}
	require.Len(t, answers, 10)
}
