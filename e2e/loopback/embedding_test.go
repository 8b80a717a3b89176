package loopback

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/identity"
)

// block is one of a program or of commands in a manual. A program has a name.
var block = regexp.MustCompile("(?ms)^```(sh|go) ?(\\S*)\n(.*?)^```$")

// TestModuleOfOnesOwn does what the manual says, outside of the workspace, and runs what comes of it.
func TestModuleOfOnesOwn(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	manual, err := os.ReadFile(filepath.Join(root, "docs", "EMBEDDING.md"))
	require.NoError(t, err)
	dir, commands := t.TempDir(), ""
	for _, match := range block.FindAllStringSubmatch(string(manual), -1) {
		if match[1] == "sh" {
			commands += match[3]
			continue
		}
		path := filepath.Join(dir, match[2])
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(match[3]), 0o644))
	}
	shell := func(commands string) {
		cmd := exec.CommandContext(t.Context(), "bash", "-euc", commands)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "CONNSWAP="+root)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	shell(commands)
	shell("go vet ./... && go build -o bin/ ./...")

	certs := filepath.Join(dir, "certs")
	_, err = identity.EnsureDevelopment(certs, time.Now())
	require.NoError(t, err)
	env := []string{"CONNECTION_SWAP_TLS_DIR=" + certs}
	director := start(t, "director", append(env, "CONNECTION_SWAP_DIRECTOR_ID=director",
		"CONNECTION_SWAP_DIRECTOR_USER_ADDR=127.0.0.1:0", "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="+freePort(t))...)
	serves := director.line(t, "director serves")
	env = append(env, "CONNECTION_SWAP_DIRECTOR_MGMT_ADDR="+serves["mgmt"].(string))
	worker := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "worker"))
	worker.Env = append(env, "CONNECTION_SWAP_WORKER_LABEL=own", "CONNECTION_SWAP_WORKER_TOKEN_INTERVAL=0",
		"CONNECTION_SWAP_WORKER_USER_ADDR=127.0.0.1:0", "CONNECTION_SWAP_WORKER_MGMT_ADDR=127.0.0.1:0")
	worker.Stderr = os.Stderr
	require.NoError(t, worker.Start())
	client := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "client"))
	client.Env = append(env, "CONNECTION_SWAP_DIRECTOR_TARGET="+serves["user"].(string))
	out, err := client.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "1 2 3 4 5 \nown numbers\n", string(out))
	require.NoError(t, worker.Process.Signal(os.Interrupt))
	require.NoError(t, worker.Wait())
	director.terminate(t)
}
