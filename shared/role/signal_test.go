package role

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/shared/identity"
)

// TestHangup: a role that has something of its own to do at a hangup does that, and looks at its certificates as any other.
func TestHangup(t *testing.T) {
	dir := t.TempDir()
	_, err := identity.EnsureDevelopment(dir, time.Now())
	require.NoError(t, err)
	source, err := identity.FromDir(dir, identity.Worker)
	require.NoError(t, err)
	core, logs := observer.New(zap.InfoLevel)
	called := make(chan struct{}, 1)
	more := map[os.Signal]func(){syscall.SIGHUP: func() { called <- struct{}{} }}
	stop := Signals(source, zap.New(core), more)
	defer stop()
	require.Len(t, more, 1)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	<-called
	require.Equal(t, 1, logs.FilterMessageSnippet("the certificates are those in use").Len())
}
