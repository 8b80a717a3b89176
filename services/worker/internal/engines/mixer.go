package engines

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// mixer is a generation.
type mixer struct {
	words [][]byte
	limit engine.Limit
	stateHeader
	state []byte // room for the header, which is written when the state is captured; then the body
}

func (m *mixer) body() []byte { return m.state[headerSize:] }

// replay makes the tokens of prefix: there is no shorter way to the state behind them.
func (m *mixer) replay(ctx context.Context, prefix []engine.Chunk, progress func(at int)) error {
	for i, want := range prefix {
		if i%1024 == 0 {
			progress(i)
		}
		token, err := m.Next(ctx)
		if _, over := engine.Finished(err); err != nil && !over {
			return err
		}
		if !bytes.Equal(token.Text, want.Text) {
			return wire.Errorf(wire.CodeDiverged, "engine stateful: token %d of the prefix is %.40q, of this request it is %q",
				i+1, want.Text, token.Text)
		}
	}
	return nil
}

func (m *mixer) Next(ctx context.Context) (engine.Chunk, error) {
	if err := ctx.Err(); err != nil {
		return engine.Chunk{}, err
	}
	if err := m.limit.Take(1); err != nil {
		return engine.Chunk{}, err
	}
	m.step()
	return engine.Chunk{Text: m.words[pick(mix(m.Sum), len(m.words))]}, nil
}

const (
	cell      = 8  // bytes of the body that are mixed at once, at any offset
	line      = 64 // bytes that each token reads of those that follow the line of the token before
	scattered = 4  // cells that each token reads where those before have led
)

// step makes one token. A difference anywhere in the body leads it elsewhere sooner or later: when a scattered cell
// meets it, and at the latest when the lines have gone once through the body.
func (m *mixer) step() {
	body := m.body()
	m.Position++
	m.Sum = mix(m.Sum + m.Position)
	for range scattered {
		m.fold(body[pick(m.Sum, len(body)-cell+1):])
	}
	lines := uint64(len(body)+line-1) / line
	start := min(int(m.Position%lines)*line, len(body)-line) // the last line may overlap the one before
	for at := start; at < start+line; at += cell {
		m.fold(body[at:])
	}
}

// fold changes the sum and the first cell of b by each other. No two values of the cell lead to the same sum.
func (m *mixer) fold(b []byte) {
	value := endian.Uint64(b)
	m.Sum = mix(m.Sum ^ value)
	endian.PutUint64(b, value+m.Sum)
}

// pick maps x, evenly spread, to 0 to n-1, evenly spread.
func pick(x uint64, n int) int {
	high, _ := bits.Mul64(x, uint64(n))
	return int(high)
}

func (m *mixer) Capture(buf []byte) ([]byte, error) {
	from := len(buf)
	buf = append(buf, m.state...)
	state := buf[from:]
	if _, err := binary.Encode(state, endian, m.stateHeader); err != nil {
		return nil, fmt.Errorf("engine stateful: header: %w", err)
	}
	endian.PutUint32(state, checksum(state))
	return buf, nil
}

// PromptTokens implements engine.Prompted.
func (m *mixer) PromptTokens() int { return m.limit.PromptTokens() }

func (m *mixer) Close() error {
	m.state = nil // whoever holds the generation a little longer need not hold the state
	return nil
}
