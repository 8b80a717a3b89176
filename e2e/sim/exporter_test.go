package sim

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExporterIsForOperators: what identifies a client's TLS session is a secret of both ends. Operators see it, everybody
// else its hash.
func TestExporterIsForOperators(t *testing.T) {
	stage(t, setup{}, func(t *testing.T, s *scenario) {
		proof, err := s.conn.Proof()
		require.NoError(t, err)
		for _, path := range []string{"/v1/connections", "/v1/status", "/v1/sessions"} {
			var page json.RawMessage
			require.NoError(t, s.status(path, &page))
			require.NotContains(t, string(page), proof.Exporter, path)
			require.Equal(t, path != "/v1/sessions", strings.Contains(string(page), proof.ExporterHash()), path)
		}
		status, err := s.operate().Status(s.ctx)
		require.NoError(t, err)
		require.Equal(t, proof.Exporter, status.Connections[0].Exporter)
		require.Contains(t, string(status.Raw), proof.ExporterHash())
	})
}
