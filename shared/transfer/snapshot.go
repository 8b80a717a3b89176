package transfer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// ErrDamaged means that a snapshot is not what its checksum and size say.
var ErrDamaged = errors.New("damaged snapshot")

// Snapshot is the state of an engine after a token, compressed. It never changes, and is safe for concurrent use.
type Snapshot struct {
	sequence uint64
	size     int
	checksum [sha256.Size]byte // over the state
	chunks   [][]byte
}

// Compress makes a snapshot of the state after the token with that sequence. It does not keep state. The error
// is a *wire.Error for a state of more than wire.MaxState bytes.
func Compress(sequence uint64, state []byte) (*Snapshot, error) {
	if len(state) > wire.MaxState {
		return nil, wire.Errorf(wire.CodeLimit, "a state of %d bytes, allowed are %d", len(state), wire.MaxState)
	}
	s := &Snapshot{sequence: sequence, size: len(state), checksum: sha256.Sum256(state)}
	s.chunks = make([][]byte, chunksOf(s.size))
	var scratch []byte
	for n := range s.chunks {
		plain := state[n*chunkSize:][:plainSize(s.size, n)]
		var err error
		if s.chunks[n], scratch, err = codec.deflate(plain, scratch); err != nil {
			return nil, fmt.Errorf("compressing: %w", err)
		}
		runtime.Gosched() // tokens first
	}
	return s, nil
}

// State returns the state, in memory of its own. The error is ErrDamaged if it is not what it was.
func (s *Snapshot) State() ([]byte, error) {
	state := make([]byte, s.size)
	for n, chunk := range s.chunks {
		if err := codec.inflate(state[n*chunkSize:][:plainSize(s.size, n)], chunk); err != nil {
			return nil, fmt.Errorf("%w: chunk %d: %w", ErrDamaged, n, err)
		}
		runtime.Gosched() // as in Compress
	}
	if sha256.Sum256(state) != s.checksum {
		return nil, fmt.Errorf("%w: its checksum is another one", ErrDamaged)
	}
	return state, nil
}

// Sequence returns the last token before the state.
func (s *Snapshot) Sequence() uint64 { return s.sequence }

// Size returns the bytes of the state.
func (s *Snapshot) Size() int { return s.size }

// Bytes returns the bytes of the snapshot in memory.
func (s *Snapshot) Bytes() int {
	total := 0
	for _, chunk := range s.chunks {
		total += len(chunk)
	}
	return total
}

// header is what goes ahead of the chunks.
func (s *Snapshot) header() *wirepb.Snapshot {
	return &wirepb.Snapshot{
		Sequence: s.sequence,
		Size:     uint64(s.size),
		Chunks:   uint32(len(s.chunks)),
		Checksum: s.checksum[:],
	}
}
