package transfer

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// No chunk has the seal of another: not in another place, nor of another snapshot.
func TestSealIsBound(t *testing.T) {
	header := compress(t, 1, noise(mib)).header()
	right, err := newSeal(token(1), header)
	require.NoError(t, err)
	chunk := []byte("a chunk")
	sealed := right.close(nil, 2, chunk)
	require.Len(t, sealed, len(chunk)+overhead)
	require.Equal(t, sealed, right.close(nil, 2, chunk), "sent again it is the same")
	opened, err := right.open(2, bytes.Clone(sealed))
	require.NoError(t, err)
	require.Equal(t, chunk, opened)
	_, err = right.open(3, bytes.Clone(sealed))
	require.Error(t, err)

	for _, change := range []func(h *wirepb.Snapshot){
		func(h *wirepb.Snapshot) { h.Sequence++ },
		func(h *wirepb.Snapshot) { h.Size-- },
		func(h *wirepb.Snapshot) { h.Chunks-- },
		func(h *wirepb.Snapshot) { h.Checksum[5]++ },
	} {
		other := proto.CloneOf(header)
		change(other)
		wrong, err := newSeal(token(1), other)
		require.NoError(t, err)
		_, err = wrong.open(2, bytes.Clone(sealed))
		require.Error(t, err)
	}
	_, err = newSeal(&wirepb.Token{}, header)
	require.Error(t, err)
}

// FuzzDownload gives a download one chunk and a header from anywhere. Sealed bytes are as they came; where proper
// is set they are compressed bytes that somebody with the token has sealed.
func FuzzDownload(f *testing.F) {
	for _, state := range [][]byte{nil, {1}, bytes.Repeat([]byte("connswap"), 1000), noise(2 * kib)} {
		s := compress(f, 4, state)
		seal, err := newSeal(token(1), s.header())
		require.NoError(f, err)
		var chunk []byte
		if len(s.chunks) > 0 {
			chunk = s.chunks[0]
		}
		f.Add(s.sequence, uint64(s.size), uint32(len(s.chunks)), s.checksum[:], uint32(0), chunk, true)
		f.Add(s.sequence, uint64(s.size), uint32(len(s.chunks)), s.checksum[:], uint32(0), seal.close(nil, 0, chunk), false)
		f.Add(s.sequence, uint64(s.size), uint32(len(s.chunks)), s.checksum[:], uint32(1), chunk, true)
	}
	f.Add(uint64(1), uint64(64*mib), uint32(256), make([]byte, 32), uint32(0), bomb(f), true)
	const limit = mib
	f.Fuzz(func(t *testing.T, sequence, size uint64, chunks uint32, checksum []byte, number uint32, chunk []byte, proper bool) {
		d := newDownload(token(1), limit)
		header := &wirepb.Snapshot{Sequence: sequence, Size: size, Chunks: chunks, Checksum: checksum}
		if d.begin(header) != nil {
			return
		}
		if size > limit || len(d.plain) > chunkSize {
			t.Fatalf("took a state of %d bytes", size)
		}
		if chunks > 0 {
			if proper {
				chunk = d.seal.close(nil, number, chunk)
			}
			if d.add(&wirepb.Chunk{Number: number, Sealed: chunk}) != nil {
				return
			}
		}
		if chunks > 1 || d.check() != nil {
			return
		}
		state, err := d.snapshot.State()
		if err != nil || uint64(len(state)) != size {
			t.Fatalf("what was right when it came is %d bytes, %v", len(state), err)
		}
	})
}
