package identity_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/identity"
)

// TestExpiryIsWarnedOf: daily from a fortnight before, hourly on the last day and after it; not once it is renewed.
func TestExpiryIsWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ensure(t, dir)
		src, err := identity.FromDir(dir, identity.Worker)
		require.NoError(t, err)
		end := identity.ExpiryOf(src).NotAfter
		require.Equal(t, time.Now().Add(year).UTC(), end)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var texts []string
		go identity.WatchExpiry(ctx, src, func(text string, notAfter time.Time) {
			require.Equal(t, end, notAfter)
			texts = append(texts, text)
		})
		until := func(before time.Duration) (warnings []string) {
			time.Sleep(time.Until(end.Add(-before)) + time.Minute)
			synctest.Wait()
			warnings, texts = texts, nil
			return warnings
		}
		require.Empty(t, until(15*day))
		require.Equal(t, []string{"the certificate expires in 14 days"}, until(14*day-time.Hour))
		require.Len(t, until(2*day), 12)
		require.Equal(t, []string{"the certificate expires in 24h0m0s"}, until(day))
		require.Len(t, until(time.Hour), 23)
		require.Contains(t, until(0)[0], "expired at 2000-12-31T00:00:00Z: nothing can connect any more; renew the files")
		require.Len(t, until(-3*time.Hour), 3)
		_, err = identity.EnsureDevelopment(dir, time.Now())
		require.NoError(t, err)
		end = identity.ExpiryOf(src).NotAfter
		require.Empty(t, until(300*day))
	})
}

func TestExpiryInWords(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]string{
		15 * day: "", 14 * day: "the certificate expires in 14 days", 36 * time.Hour: "the certificate expires in 2 days",
		90 * time.Minute: "the certificate expires in 1h30m0s",
	} {
		note, err := (&identity.Expiry{NotAfter: now.Add(left)}).Check(now)
		require.NoError(t, err)
		require.Equal(t, want, note)
	}
	_, err := (&identity.Expiry{NotAfter: now}).Check(now)
	require.ErrorContains(t, err, "expired at 2026-01-01T00:00:00Z")
	note, err := (*identity.Expiry)(nil).Check(now)
	require.NoError(t, err)
	require.Empty(t, note)
}

// TestExpiryOfTheAuthority: what it signed is of no use after it.
func TestExpiryOfTheAuthority(t *testing.T) {
	sources, err := identity.NewDevelopment(time.Now())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(year), identity.ExpiryOf(sources[identity.Director]).NotAfter, time.Minute)
	require.Equal(t, []string{"director.connswap"}, identity.ExpiryOf(sources[identity.Director]).Names)
	require.Nil(t, identity.ExpiryOf(identity.Static(nil, nil)))
}
