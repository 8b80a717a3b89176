package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/config"
)

func TestVariablesAreDescribed(t *testing.T) {
	for _, cfg := range []any{config.Director{}, &config.Worker{}, config.Client{}} {
		seen := map[string]bool{}
		for _, v := range config.Variables(cfg) {
			require.False(t, seen[v.Name], "%s stands twice in %T", v.Name, cfg)
			seen[v.Name] = true
			require.NotEqual(t, config.Prefix+"_", v.Name)
			require.NotEmpty(t, v.Desc, v.Name)
			require.NotContains(t, v.Desc, "\n", v.Name)
			if v.Type != config.Text && v.Type != config.List {
				require.NotEmpty(t, v.Default, v.Name)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	var out strings.Builder
	require.NoError(t, config.Usage(&out, config.Client{}))
	require.Equal(t, `VARIABLE                             TYPE              DEFAULT          MEANING
CONNECTION_SWAP_LOG_LEVEL            text              info             debug, info, warn or error
CONNECTION_SWAP_LOG_FORMAT           text              console          console for people, json for machines
`, strings.Join(strings.SplitAfter(out.String(), "\n")[:3], ""))
	require.Contains(t, out.String(), "CONNECTION_SWAP_CLIENT_SEED          unsigned integer  1 ")
	require.NotContains(t, out.String(), "WORKER")
}

func TestDocumentIsUpToDate(t *testing.T) {
	have, err := os.ReadFile("../../docs/CONFIGURATION.md")
	require.NoError(t, err)
	require.Equal(t, config.Markdown(), string(have), "run go run ./shared/config/gendoc from the root of the repository")
}
