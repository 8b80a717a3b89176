package transfer

import (
	"crypto/sha256"
	"hash"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// download is a snapshot on its way in. It holds the compressed chunks and one plain one. Every chunk is checked
// when it arrives; the errors of that are *wire.Errors. It is not safe for concurrent use.
type download struct {
	token *wirepb.Token
	limit int // bytes of state

	header   *wirepb.Snapshot // nil before the first answer
	seal     *seal
	snapshot Snapshot
	hash     hash.Hash // over the state so far
	plain    []byte    // scratch, of a chunk
}

func newDownload(token *wirepb.Token, limit int) *download {
	return &download{token: token, limit: limit, hash: sha256.New()}
}

// next is the first chunk that is missing.
func (d *download) next() uint32 { return uint32(len(d.snapshot.chunks)) }

// receive reads the answer to a Pull until all chunks are there.
func (d *download) receive(r *wire.Reader) error {
	header, err := wire.ReadMessage[*wirepb.Snapshot](r)
	if err != nil {
		return err
	}
	if err := d.begin(header); err != nil {
		return err
	}
	for d.next() < d.header.GetChunks() {
		chunk, err := wire.ReadMessage[*wirepb.Chunk](r)
		if err != nil {
			return err
		}
		if err := d.add(chunk); err != nil {
			return err
		}
	}
	return d.check()
}

// begin takes the header: the first one, or the same again.
func (d *download) begin(header *wirepb.Snapshot) error {
	switch {
	case d.header != nil && !proto.Equal(d.header, header):
		return wire.Errorf(wire.CodeStateGone, "the source has another state now")
	case d.header != nil:
		return nil
	case header.GetSize() > uint64(d.limit):
		return wire.Errorf(wire.CodeLimit, "a state of %d bytes, allowed are %d", header.GetSize(), d.limit)
	case int64(header.GetChunks()) != int64(chunksOf(int(header.GetSize()))), len(header.GetChecksum()) != sha256.Size:
		return wire.Errorf(wire.CodeProtocol, "a state of %d bytes in %d chunks, checksum of %d bytes",
			header.GetSize(), header.GetChunks(), len(header.GetChecksum()))
	}
	var err error
	if d.seal, err = newSeal(d.token, header); err != nil {
		return wire.Errorf(wire.CodeInvalid, "%v", err)
	}
	d.header = header
	d.snapshot = Snapshot{
		sequence: header.GetSequence(),
		size:     int(header.GetSize()),
		checksum: [sha256.Size]byte(header.GetChecksum()),
	}
	d.plain = make([]byte, min(chunkSize, d.snapshot.size))
	return nil
}

// add takes the next chunk. It keeps its memory.
func (d *download) add(chunk *wirepb.Chunk) error {
	number := d.next()
	if chunk.GetNumber() != number {
		return wire.Errorf(wire.CodeProtocol, "chunk %d, expected was %d", chunk.GetNumber(), number)
	}
	opened, err := d.seal.open(number, chunk.GetSealed())
	if err != nil {
		return wire.Errorf(wire.CodeProtocol, "the seal of chunk %d: %v", number, err)
	}
	plain := d.plain[:plainSize(d.snapshot.size, int(number))]
	if err := codec.inflate(plain, opened); err != nil {
		return wire.Errorf(wire.CodeProtocol, "chunk %d: %v", number, err)
	}
	_, _ = d.hash.Write(plain) // a hash never fails to take bytes
	d.snapshot.chunks = append(d.snapshot.chunks, opened)
	return nil
}

// check compares the checksum, once all chunks are there.
func (d *download) check() error {
	if [sha256.Size]byte(d.hash.Sum(nil)) != d.snapshot.checksum {
		return wire.Errorf(wire.CodeProtocol, "the state is not what its checksum says")
	}
	return nil
}
