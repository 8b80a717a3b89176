package engines

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

const (
	statefulVersion = 1
	statefulWords   = 512 // nine bits of a token, so little that tokens do not tell the state
	smallestState   = 1 << 10
)

var (
	stateMagic = [8]byte([]byte("cs-state"))
	castagnoli = crc32.MakeTable(crc32.Castagnoli) // the one that processors compute
	endian     = binary.LittleEndian
)

// Stateful is an engine with a state of a fixed size, as a language model's cache has: each token changes it, and
// is made of what it has become. It serves for moving states. Its text says nothing, but whoever goes on with a
// state that is wrong, old or incomplete is found out, because all the words from there on are others.
//
// All numbers in it are little-endian and all sums wrap around, so that every machine has the same text.
type Stateful struct {
	size        int // of a state, with its header
	words       [][]byte
	fingerprint string
	opening     chan struct{} // full while opensAtOnce states are made
}

// opensAtOnce leaves half of the machine to the generations that go on, and to what keeps the worker in touch with
// its directors: a thousand streams may come at once, and each costs milliseconds of nothing but computing.
func opensAtOnce() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// NewStateful returns an engine whose states have size bytes, 1024 to wire.MaxState.
func NewStateful(size int) (*Stateful, error) {
	if size < smallestState || size > wire.MaxState {
		return nil, fmt.Errorf("engine stateful: a state of %d bytes, allowed are %d to %d",
			size, smallestState, wire.MaxState)
	}
	words := firstWords(corpus, statefulWords)
	data := fmt.Sprintf("%d %s", size, bytes.Join(words, nil))
	return &Stateful{
		size: size, words: words, fingerprint: fingerprint("stateful", statefulVersion, data),
		opening: make(chan struct{}, opensAtOnce()),
	}, nil
}

// firstWords returns the first n different words of text as tokens.
func firstWords(text string, n int) [][]byte {
	var words [][]byte
	seen := make(map[string]bool)
	for _, word := range split(text) {
		word = strings.ToLower(word)
		if !seen[word] && strings.TrimRightFunc(word, isMark) != "" && len(words) < n {
			words = append(words, []byte(word+" "))
		}
		seen[word] = true
	}
	return words
}

// Name returns stateful.
func (s *Stateful) Name() string { return "stateful" }

// Fingerprint depends on the words and on the size of the state.
func (s *Stateful) Fingerprint() string { return s.fingerprint }

// Open fills a state and makes the tokens of prefix once more. A prefix that this engine does not make for this
// request is a *wire.Error with CodeDiverged.
func (s *Stateful) Open(ctx context.Context, req engine.Request, prefix []engine.Chunk, progress engine.Progress) (engine.Generation, error) {
	limit, err := begin("stateful", req, 0)
	if err != nil {
		return nil, err
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	seed := s.seed(req)
	source := rand.NewChaCha8(seed)
	m := &mixer{words: s.words, limit: limit, stateHeader: s.header(seed), state: make([]byte, s.size)}
	m.Sum = source.Uint64()
	const piece = 1 << 20 // less than 1 ms each
	pieces, done := (s.size+piece-1)/piece, 0
	for part := range slices.Chunk(m.body(), piece) {
		done++
		progress(done, pieces+len(prefix))
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		_, _ = source.Read(part) // never fails
		runtime.Gosched()
	}
	if err := m.replay(ctx, prefix, func(at int) { progress(pieces+at, pieces+len(prefix)) }); err != nil {
		return nil, err
	}
	return m, nil
}

// Restore goes on from a state that Capture returned.
func (s *Stateful) Restore(ctx context.Context, req engine.Request, state []byte) (engine.Generation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, err := readHeader(state, s.header(s.seed(req)))
	if err != nil {
		return nil, fmt.Errorf("engine stateful: %w", err)
	}
	limit, err := begin("stateful", req, int(min(h.Position, math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	return &mixer{words: s.words, limit: limit, stateHeader: h, state: state}, nil
}

// seed is all that the text of a request depends on.
func (s *Stateful) seed(req engine.Request) (seed [sha256.Size]byte) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%d %d %d ", statefulVersion, s.size, req.Seed)
	_, _ = io.WriteString(hash, req.Prompt) // never fails (hash.Hash)
	hash.Sum(seed[:0])
	return seed
}

// header is that of a generation before its first token.
func (s *Stateful) header(seed [sha256.Size]byte) stateHeader {
	return stateHeader{
		Magic: stateMagic, Version: statefulVersion, Size: uint64(s.size), Request: [24]byte(seed[:]),
	}
}

// stateHeader is what a captured state begins with: 64 bytes.
type stateHeader struct {
	Check    uint32 // CRC-32C of all that follows, the body included; only in a captured state
	Version  uint32
	Magic    [8]byte
	Size     uint64   // of the state with the header, bytes
	Request  [24]byte // of the seed
	Position uint64   // tokens made
	Sum      uint64   // of all that those tokens have read
}

const (
	headerSize = 64
	checkSize  = 4
)

// readHeader returns the header of state, which may differ from want in what tokens change.
func readHeader(state []byte, want stateHeader) (h stateHeader, err error) {
	if len(state) != int(want.Size) {
		return h, fmt.Errorf("the state has %d bytes, not %d", len(state), want.Size)
	}
	if _, err := binary.Decode(state, endian, &h); err != nil {
		return h, err
	}
	want.Check, want.Position, want.Sum = checksum(state), h.Position, h.Sum
	switch {
	case h.Magic != want.Magic:
		return h, fmt.Errorf("the state has %q in its header, not %q", h.Magic[:], want.Magic[:])
	case h.Version != want.Version:
		return h, fmt.Errorf("the state has version %d, not %d", h.Version, want.Version)
	case h.Check != want.Check:
		return h, fmt.Errorf("the state is damaged: its checksum is %08x, not %08x", want.Check, h.Check)
	case h != want:
		return h, errors.New("the state is that of another request")
	}
	return h, nil
}

// checksum is what the header of state should have as Check.
func checksum(state []byte) uint32 { return crc32.Checksum(state[checkSize:], castagnoli) }
