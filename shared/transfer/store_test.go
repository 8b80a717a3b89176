package transfer

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func requireHeld(t *testing.T, s *Store, key Key, want *Snapshot) {
	t.Helper()
	got, ok := s.Get(key)
	require.Equal(t, want != nil, ok)
	require.Same(t, want, got)
}

func TestStoreBound(t *testing.T) {
	small, large := compress(t, 1, noise(kib)), compress(t, 2, noise(10*kib))
	s := NewStore(large.Bytes() + small.Bytes())
	defer s.Close()
	a, b, c := Key{"d", 1, false}, Key{"d", 1, true}, Key{"e", 1, false}
	require.NoError(t, s.Put(a, small, 0))
	require.NoError(t, s.Put(b, large, 0))
	require.ErrorIs(t, s.Put(c, small, 0), ErrFull)
	require.ErrorIs(t, s.Put(a, large, 0), ErrFull)
	requireHeld(t, s, a, small) // the older one stays
	requireHeld(t, s, c, nil)
	require.Equal(t, large.Bytes()+small.Bytes(), s.Bytes())

	newer := compress(t, 3, noise(10*kib)) // it fits in the place of the older one
	require.NoError(t, s.Put(b, newer, 0))
	requireHeld(t, s, b, newer)
	s.Drop(a)
	s.Drop(a)
	s.Drop(c)
	require.Equal(t, newer.Bytes(), s.Bytes())
	require.NoError(t, s.Put(c, small, 0))
	s.DropDirector("d")
	requireHeld(t, s, b, nil)
	requireHeld(t, s, c, small)
	s.Close()
	require.Zero(t, s.Bytes())
	require.ErrorIs(t, s.Put(c, small, 0), ErrClosed)
}

func TestStoreExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, newer := compress(t, 1, noise(kib)), compress(t, 2, noise(kib))
		s := NewStore(mib)
		key, other := Key{"d", 1, false}, Key{"d", 1, true}
		require.NoError(t, s.Put(key, old, 2*time.Second))
		require.NoError(t, s.Put(other, old, 0))
		time.Sleep(time.Second)
		require.NoError(t, s.Put(key, newer, 2*time.Second)) // its time begins now
		time.Sleep(1500 * time.Millisecond)
		requireHeld(t, s, key, newer)
		time.Sleep(time.Second)
		require.Equal(t, old.Bytes(), s.Bytes(), "given back before anybody asks")
		requireHeld(t, s, key, nil)

		require.NoError(t, s.Put(key, old, time.Second))
		require.NoError(t, s.Put(key, newer, 0))
		require.NoError(t, s.Put(other, old, time.Second))
		s.Drop(other)
		require.NoError(t, s.Put(other, newer, time.Hour))
		time.Sleep(time.Minute)
		requireHeld(t, s, key, newer)
		requireHeld(t, s, other, newer)
		s.Close()
	})
}

func TestStoreConcurrently(t *testing.T) {
	snapshots := []*Snapshot{compress(t, 1, noise(kib)), compress(t, 2, noise(2*kib)), compress(t, 3, nil)}
	s := NewStore(5 * kib)
	var users sync.WaitGroup
	for i := range 8 {
		users.Go(func() {
			for n := range 500 {
				key := Key{"d", uint64((i + n) % 4), n%2 == 0}
				switch n % 5 {
				case 0, 1, 2:
					_ = s.Put(key, snapshots[n%3], time.Duration(n%3)*time.Microsecond) // full at times
				case 3:
					s.Drop(key)
				default:
					s.Get(key)
				}
				if n%100 == 99 {
					s.DropDirector("d")
				}
				if held := s.Bytes(); held < 0 || held > 5*kib {
					t.Errorf("%d bytes held", held)
				}
			}
		})
	}
	users.Wait()
	s.DropDirector("d")
	require.Zero(t, s.Bytes())
	s.Close()
}
