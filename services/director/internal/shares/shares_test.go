package shares_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/wire"
)

func ledger(each int64) *shares.Ledger {
	return shares.New(shares.Limits{shares.Connections: each, shares.Requests: each, shares.Streams: each, shares.Bytes: each})
}

// fill takes as much as there is, one at a time.
func fill(h *shares.Holder) (n int) {
	for h.Take(shares.Streams, 1) == nil {
		n++
	}
	return n
}

// TestWhileThereIsRoom: one alone may have seven eighths.
func TestWhileThereIsRoom(t *testing.T) {
	h := ledger(800).Join("a")
	require.Equal(t, 700, fill(h))
	err := h.Take(shares.Streams, 1)
	var refusal *wire.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, wire.CodeLimit, refusal.Code)
	require.ErrorContains(t, err, "of 800 in all (DIRECTOR_MAX_SESSIONS) 700 are taken, 700 of them by a")
}

// TestNewcomersFindRoom: whoever has taken what there was, and however often they ask again, the next one gets something.
func TestNewcomersFindRoom(t *testing.T) {
	for hogs, want := range map[int]int{1: 50, 2: 50, 16: 20, 64: 1} {
		l := ledger(8000)
		for range 2 {
			for i := range hogs {
				fill(l.Join(fmt.Sprint("hog ", i)))
			}
		}
		require.GreaterOrEqual(t, fill(l.Join("late")), want, "beside %d", hogs)
	}
}

// TestWhatIsThereGoesOn: to grow, what is there may use what is kept for newcomers; nobody gets more than there is.
func TestWhatIsThereGoesOn(t *testing.T) {
	l := ledger(800 << 20)
	h := l.Join("a")
	a, err := h.Open(700 << 20)
	require.NoError(t, err)
	_, err = h.Open(1)
	require.Error(t, err)
	require.True(t, l.Short(shares.Bytes))
	require.True(t, a.Grow(100<<20))
	require.False(t, a.Grow(1))
	_, err = l.Join("b").Open(1)
	require.Error(t, err)
	a.Close()
	require.False(t, l.Short(shares.Bytes))
	a, err = l.Join("b").Open(1)
	require.NoError(t, err)
	a.Close()
}

func TestMost(t *testing.T) {
	l := ledger(100)
	for name, n := range map[string]int{"few": 1, "many": 5, "some": 3} {
		require.NoError(t, l.Join(name).Take(shares.Connections, n))
	}
	l.Join("none")
	var got []string
	for _, h := range l.Most(shares.Connections) {
		got = append(got, h.Name())
	}
	require.Equal(t, []string{"many", "some", "few"}, got)
	status := l.Status()["connections"]
	require.Equal(t, int64(9), status.Used)
	require.Equal(t, []shares.Has{{"many", 5}, {"some", 3}, {"few", 1}}, status.Most)
}

// TestNothingIsLost: whatever many do at once, in the end everything is there again, and nobody is remembered.
func TestNothingIsLost(t *testing.T) {
	const limit = 64
	l := ledger(limit)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 500 {
				h := l.Join(fmt.Sprint((i + j) % 5))
				if h.Take(shares.Streams, 3) == nil {
					if a, err := h.Open(2); err == nil {
						a.Grow(1)
						a.Close()
					}
					h.Give(shares.Streams, 3)
				}
				h.Leave()
			}
		})
	}
	all.Wait()
	for kind, share := range l.Status() {
		require.Zero(t, share.Used, kind)
		require.Empty(t, share.Most, kind)
	}
	late := l.Join("late")
	require.Equal(t, limit-limit/8, fill(late))
	require.True(t, errors.As(late.Take(shares.Streams, 1), new(*wire.Error)))
}

// TestLimitsThatChange: who has more than he would get keeps it; the next one asks for what there is now.
func TestLimitsThatChange(t *testing.T) {
	l := ledger(8)
	h := l.Join("a")
	require.Equal(t, 7, fill(h))
	l.SetLimits(shares.Limits{shares.Streams: 2})
	require.ErrorContains(t, h.Take(shares.Streams, 1), "of 2 in all (DIRECTOR_MAX_SESSIONS) 7 are taken")
	require.Error(t, l.Join("b").Take(shares.Streams, 1))
	require.Equal(t, int64(2), l.Status()["streams"].Limit)
	h.Give(shares.Streams, 6)
	require.NoError(t, l.Join("b").Take(shares.Streams, 1))
	l.SetLimits(shares.Limits{shares.Streams: 800})
	require.Equal(t, 698, fill(h)) // but for what is kept for those who have little
}
