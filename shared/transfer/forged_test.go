package transfer

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// answer is what a source says to a Pull, frame by frame.
type answer struct {
	t        *testing.T
	snapshot *Snapshot
	seal     *seal
	header   *wirepb.Snapshot
	chunks   []*wirepb.Chunk
	other    []byte // in the place of it all
}

// honest is the right answer, to be spoilt.
func honest(t *testing.T, state []byte, token *wirepb.Token) *answer {
	a := &answer{t: t, snapshot: compress(t, 9, state)}
	a.header = a.snapshot.header()
	a.sealFor(token, a.header)
	return a
}

// sealFor seals the chunks anew.
func (a *answer) sealFor(token *wirepb.Token, header *wirepb.Snapshot) {
	var err error
	a.seal, err = newSeal(token, header)
	require.NoError(a.t, err)
	a.chunks = nil
	for n, chunk := range a.snapshot.chunks {
		a.chunks = append(a.chunks, &wirepb.Chunk{Number: uint32(n), Sealed: a.seal.close(nil, uint32(n), chunk)})
	}
}

func (a *answer) bytes() []byte {
	if a.other != nil {
		return a.other
	}
	b := wire.Append(nil, a.header)
	for _, chunk := range a.chunks {
		b = wire.Append(b, chunk)
	}
	return b
}

func TestForged(t *testing.T) {
	const protocol = wire.CodeProtocol
	with := func(change func(token *wirepb.Token)) func(a *answer) {
		return func(a *answer) {
			other := token(1)
			change(other)
			a.sealFor(other, a.header)
		}
	}
	tests := map[string]struct {
		spoil func(a *answer)
		code  wire.Code // empty: it is right
		text  string
	}{
		"nothing":              {func(*answer) {}, "", ""},
		"a bit":                {func(a *answer) { a.chunks[1].Sealed[100] ^= 1 }, protocol, "the seal of chunk 1"},
		"a bit of the tag":     {func(a *answer) { s := a.chunks[2].Sealed; s[len(s)-1] ^= 1 }, protocol, "the seal of chunk 2"},
		"no seal":              {func(a *answer) { a.chunks[0].Sealed = a.snapshot.chunks[0] }, protocol, "the seal of chunk 0"},
		"nothing sealed":       {func(a *answer) { a.chunks[0].Sealed = nil }, protocol, "the seal of chunk 0"},
		"half a chunk":         {func(a *answer) { a.chunks[0].Sealed = a.chunks[0].Sealed[:1000] }, protocol, "the seal of chunk 0"},
		"chunks swapped":       {func(a *answer) { a.chunks[0], a.chunks[1] = a.chunks[1], a.chunks[0] }, protocol, "chunk 1, expected was 0"},
		"contents swapped":     {func(a *answer) { a.chunks[0].Sealed, a.chunks[1].Sealed = a.chunks[1].Sealed, a.chunks[0].Sealed }, protocol, "the seal of chunk 0"},
		"a chunk twice":        {func(a *answer) { a.chunks[1] = a.chunks[0] }, protocol, "chunk 0, expected was 1"},
		"a chunk missing":      {func(a *answer) { a.chunks = append(a.chunks[:1], a.chunks[2:]...) }, protocol, "chunk 2, expected was 1"},
		"truncated":            {func(a *answer) { a.chunks = a.chunks[:2] }, protocol, "EOF"},
		"nothing but a header": {func(a *answer) { a.chunks = nil }, protocol, "EOF"},
		"silence":              {func(a *answer) { a.other = []byte{} }, protocol, "EOF"},
		"a frame half arrived": {func(a *answer) { a.other = a.bytes()[:5000] }, protocol, "EOF"},
		"no header":            {func(a *answer) { a.other = wire.Append(nil, a.chunks[0]) }, protocol, "unexpected frame"},
		"two headers":          {func(a *answer) { a.other = wire.Append(wire.Append(nil, a.header), a.header) }, protocol, "unexpected frame"},
		"malformed":            {func(a *answer) { a.other = []byte{3, byte(wire.TypeSnapshot), 0xff, 0xff} }, protocol, "malformed"},
		"a frame too large":    {func(a *answer) { a.chunks[0].Sealed = make([]byte, maxFrame) }, protocol, "exceeds the limit"},
		"refused":              {func(a *answer) { a.other = wire.Append(nil, errGone.Proto()) }, wire.CodeStateGone, ""},
		"refused on the way": {func(a *answer) {
			a.other = wire.Append(wire.Append(wire.Append(nil, a.header), a.chunks[0]), errGone.Proto())
		}, wire.CodeStateGone, ""},

		"of another token":      {with(func(t *wirepb.Token) { t.Secret[0]++ }), protocol, "the seal of chunk 0"},
		"of another session":    {with(func(t *wirepb.Token) { t.Session++ }), protocol, "the seal of chunk 0"},
		"of another director":   {with(func(t *wirepb.Token) { t.Director += "0" }), protocol, "the seal of chunk 0"},
		"of another connection": {with(func(t *wirepb.Token) { t.ConnectionId = "c-2" }), protocol, "the seal of chunk 0"},
		"of another stream":     {with(func(t *wirepb.Token) { t.StreamId++ }), protocol, "the seal of chunk 0"},
		"of another target":     {with(func(t *wirepb.Token) { t.Target = "targe" }), protocol, "the seal of chunk 0"},
		"of another source":     {with(func(t *wirepb.Token) { t.Source = "" }), protocol, "the seal of chunk 0"},
		"from another epoch":    {with(func(t *wirepb.Token) { t.FromEpoch++ }), protocol, "the seal of chunk 0"},
		"to another epoch":      {with(func(t *wirepb.Token) { t.ToEpoch++ }), protocol, "the seal of chunk 0"},
		"names cut elsewhere":   {with(func(t *wirepb.Token) { t.Source, t.Target = "sourcet", "arget" }), protocol, "the seal of chunk 0"},

		"too large":           {func(a *answer) { a.header.Size = 64*mib + 1; a.header.Chunks = 257 }, wire.CodeLimit, "67108865"},
		"much too large":      {func(a *answer) { a.header.Size = 1<<64 - 1; a.header.Chunks = 1<<32 - 1 }, wire.CodeLimit, ""},
		"too many chunks":     {func(a *answer) { a.header.Chunks++ }, protocol, "in 4 chunks"},
		"too few chunks":      {func(a *answer) { a.header.Chunks-- }, protocol, "in 2 chunks"},
		"no chunks":           {func(a *answer) { a.header.Chunks = 0 }, protocol, "in 0 chunks"},
		"a short checksum":    {func(a *answer) { a.header.Checksum = a.header.Checksum[:31] }, protocol, "checksum of 31 bytes"},
		"another sequence":    {func(a *answer) { a.header.Sequence++ }, protocol, "the seal of chunk 0"},
		"another checksum":    {func(a *answer) { a.header.Checksum[0]++; a.sealFor(token(1), a.header) }, protocol, "checksum says"},
		"another size":        {func(a *answer) { a.header.Size++; a.sealFor(token(1), a.header) }, protocol, "chunk 2: decompressing"},
		"a bomb":              {func(a *answer) { a.snapshot.chunks[1] = bomb(a.t); a.sealFor(token(1), a.header) }, protocol, "chunk 1: decompressing"},
		"an empty chunk":      {func(a *answer) { a.snapshot.chunks[1] = nil; a.sealFor(token(1), a.header) }, protocol, "chunk 1: decompressing"},
		"a chunk that is not": {func(a *answer) { a.snapshot.chunks[1] = noise(kib); a.sealFor(token(1), a.header) }, protocol, "chunk 1: decompressing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			simulate(t, near, func(p *pair) {
				a := honest(p.T, noise(2*chunkSize+1000), token(1))
				test.spoil(a)
				p.handle = func(s mgmt.Stream, _ *wirepb.Pull) error {
					_, err := s.Write(a.bytes())
					return err
				}
				start := time.Now()
				snapshot, err := p.pull(1)
				require.Equal(p, []uint32{0}, p.asked())
				require.Less(p, time.Since(start), goodbye)
				p.requireClosed()
				if test.code == "" {
					require.NoError(p, err)
					return
				}
				require.Nil(p, snapshot)
				requireCode(p, test.code, err)
				require.ErrorContains(p, err, test.text)
			})
		})
	}
}

// A source that resets is asked again, as one that was lost is; what it says then has to go on as it began.
func TestAnotherStateAfterAReset(t *testing.T) {
	for _, same := range []bool{true, false} {
		simulate(t, near, func(p *pair) {
			state := noise(2*chunkSize + 1000)
			a := honest(p.T, state, token(1))
			p.handle = func(s mgmt.Stream, ask *wirepb.Pull) error {
				if ask.GetFirstChunk() == 0 {
					_, err := s.Write(wire.Append(wire.Append(nil, a.header), a.chunks[0]))
					require.NoError(p, err)
					time.Sleep(time.Second) // a reset overtakes what is under way
					return errors.New("defect")
				}
				b := a
				if !same {
					b = honest(p.T, noise(2*chunkSize+1000), token(1))
					b.header = proto.CloneOf(b.header)
					b.header.Sequence++
				}
				b.chunks = b.chunks[ask.GetFirstChunk():]
				_, err := s.Write(b.bytes())
				return err
			}
			snapshot, err := p.pull(1)
			require.Equal(p, []uint32{0, 1}, p.asked())
			if same {
				require.NoError(p, err)
				requireState(p, state, snapshot)
			} else {
				requireCode(p, wire.CodeStateGone, err)
			}
		})
	}
}
