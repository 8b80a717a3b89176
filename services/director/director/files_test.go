package director

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/metrics"
	"github.com/connswap/connswap/shared/config"
)

// TestReadFiles: keys may be in either file, not in both; a file that cannot be used is a problem with its variable.
func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	keys := fmt.Sprintf("keys: [{name: a, sha256: %x}]\n", sha256.Sum256([]byte("sk-a")))
	for name, c := range map[string]struct {
		configFile, keysFile string
		keyed                bool
		problem              config.Problem
	}{
		"none":     {},
		"keys":     {keysFile: write("keys", keys), keyed: true},
		"settings": {configFile: write("settings", "models: {m: {}}\n")},
		"both":     {configFile: write("both", keys), keyed: true},
		"each":     {configFile: write("each", "limits: {max_tokens: 3}\n"), keysFile: write("keys", keys), keyed: true},
		"twice": {
			configFile: write("twice", keys), keysFile: write("keys", keys),
			problem: config.Problem{
				Variable: "CONNECTION_SWAP_DIRECTOR_CONFIG_FILE", Value: dir + "/twice",
				Want: fmt.Sprintf("cannot be used: %s/twice:1: keys are in CONNECTION_SWAP_DIRECTOR_KEYS_FILE (%[1]s/keys) too; give them in one of the two files", dir),
			},
		},
		"wrong": {
			configFile: write("wrong", "models: {m: {}}\nlimit: {}\n"),
			problem: config.Problem{
				Variable: "CONNECTION_SWAP_DIRECTOR_CONFIG_FILE", Value: dir + "/wrong",
				Want: fmt.Sprintf("cannot be used: %s/wrong:2: there is no field \"limit\"; did you mean limits? there are keys, limits, models", dir),
			},
		},
		"wrong keys": {
			keysFile: write("wrong keys", "keys:\n"),
			problem: config.Problem{
				Variable: "CONNECTION_SWAP_DIRECTOR_KEYS_FILE", Value: dir + "/wrong keys",
				Want: fmt.Sprintf("cannot be used: %s/wrong keys:1: keys: want a list, with [] for nobody", dir),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.DefaultDirector()
			cfg.ConfigFile, cfg.KeysFile = c.configFile, c.keysFile
			f, err := readFiles(cfg, zap.NewNop(), metrics.New(nil))
			if c.problem.Want != "" {
				require.Equal(t, c.problem, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.keyed, f.keys != nil)
			_, ok := f.keys.Authenticate("sk-a")
			require.True(t, ok)
			_, ok = f.keys.Authenticate("sk-b")
			require.Equal(t, !c.keyed, ok)
			d := &Director{settings: f.settings, keysFile: f.keysFile}
			require.Equal(t, c.keysFile != "", d.keysStatus() != nil)
			require.Equal(t, c.configFile != "", d.settings.Status() != nil)
		})
	}
}
