package mgmt_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/mgmt"
)

func fine() error { return nil }

// noted is a check for which there is nothing to note.
func noted(check func() error) func() (string, error) {
	return func() (string, error) { return "", check() }
}

func TestCheckup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var check mgmt.Checkup
		require.NoError(t, check.Ask(), "nothing to ask")
		check.Add("placement", fine)
		require.NoError(t, check.Ask())
		var ill error
		check.Add("clock", func() error { return ill })
		require.NoError(t, check.Ask())
		ill = errors.New("has not moved for 3s")
		require.EqualError(t, check.Ask(), "clock: has not moved for 3s")
	})
}

// A part that is stuck costs one goroutine and one second, however often it is asked, and by how many.
func TestCheckupOfWhatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, calls := make(chan struct{}), 0
		var check mgmt.Checkup
		check.Add("sessions", fine)
		check.Add("placement", func() error { calls++; <-free; return nil })
		check.Add("clock", func() error { return errors.New("has not moved") })
		server := mgmt.NewMux(check.Ask, noted(check.Ask), anybody())
		before := runtime.NumGoroutine()
		for range 3 {
			start := time.Now()
			var askers sync.WaitGroup
			for range 20 {
				askers.Go(func() {
					answer := httptest.NewRecorder()
					server.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/livez", nil))
					if answer.Code != http.StatusServiceUnavailable {
						t.Errorf("code %d", answer.Code)
					}
				})
			}
			askers.Wait()
			require.Equal(t, time.Second, time.Since(start))
		}
		require.EqualError(t, check.Ask(), "placement: stuck, no answer for 4s; clock: has not moved")
		synctest.Wait()
		for i := 0; i < 100_000 && runtime.NumGoroutine() > before+1; i++ {
			runtime.Gosched() // the runtime still counts those that have just ended; one that is left stays
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), before+1)
		require.Equal(t, 1, calls)
		close(free)
		synctest.Wait()
		require.EqualError(t, check.Ask(), "clock: has not moved", "it goes on")
	})
}
