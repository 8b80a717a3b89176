package transfer

import (
	"bytes"
	"runtime"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/wire"
)

func TestCompress(t *testing.T) {
	for _, state := range [][]byte{
		nil,
		{0},
		make([]byte, chunkSize-1), noise(chunkSize), noise(chunkSize + 1), make([]byte, 3*mib+1),
		bytes.Repeat([]byte("a state that repeats itself"), 50000),
	} {
		kept := bytes.Clone(state)
		s := compress(t, 3, state)
		clear(state) // the snapshot has its own copy
		requireState(t, kept, s)
		require.Equal(t, uint64(3), s.Sequence())
		require.Equal(t, len(kept), s.Size())
		require.Len(t, s.chunks, chunksOf(len(kept)))
		for _, chunk := range s.chunks {
			require.LessOrEqual(t, len(chunk)+overhead+100, maxFrame)
			require.LessOrEqual(t, cap(chunk), len(chunk)+len(chunk)/4+64, "memory that Held does not count")
		}
	}
	require.Less(t, compress(t, 1, make([]byte, 64*mib)).Bytes(), mib)
	_, err := Compress(1, make([]byte, wire.MaxState+1))
	requireCode(t, wire.CodeLimit, err)
}

func TestDamaged(t *testing.T) {
	for name, damage := range map[string]func(s *Snapshot){
		"checksum": func(s *Snapshot) { s.checksum[0]++ },
		"swapped":  func(s *Snapshot) { s.chunks[0], s.chunks[1] = s.chunks[1], s.chunks[0] },
		"size":     func(s *Snapshot) { s.size-- },
		"chunk":    func(s *Snapshot) { s.chunks[1] = s.chunks[1][:100] },
		"bomb":     func(s *Snapshot) { s.chunks[1] = bomb(t) },
	} {
		s := compress(t, 1, noise(3*chunkSize-5))
		damage(s)
		_, err := s.State()
		require.ErrorIs(t, err, ErrDamaged, name)
	}
}

// bomb is little that decompresses to 64 MiB.
func bomb(t testing.TB) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	return w.EncodeAll(make([]byte, 64*mib), nil)
}

func TestBombs(t *testing.T) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(chunkSize))
	require.NoError(t, err)
	var unsized bytes.Buffer // a frame that does not say how large it is
	w.Reset(&unsized)
	for range 64 {
		_, err = w.Write(make([]byte, mib))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	right := w.EncodeAll(make([]byte, chunkSize), nil)
	for name, chunk := range map[string][]byte{
		"sized":       bomb(t),
		"unsized":     unsized.Bytes(),
		"many frames": bytes.Repeat(right, 256),
		"one more":    append(bytes.Clone(right), w.EncodeAll([]byte{1}, nil)...),
		"window":      {0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0}, // of 3.75 TiB
	} {
		dst := make([]byte, chunkSize)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := codec.inflate(dst, chunk)
		runtime.ReadMemStats(&after)
		require.Error(t, err, name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*mib), name)
	}
	require.NoError(t, codec.inflate(make([]byte, chunkSize), right))
}

// Many at once share one encoder and one decoder, and do not mix.
func TestConcurrently(t *testing.T) {
	var users sync.WaitGroup
	for i := range 8 {
		users.Go(func() {
			for range 5 {
				state := noise(chunkSize + i)
				s, err := Compress(1, state)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := s.State(); err != nil || !bytes.Equal(got, state) {
					t.Error("another state", err)
				}
			}
		})
	}
	users.Wait()
}
