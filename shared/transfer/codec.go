package transfer

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// chunkSize is how many bytes of state a chunk has; the last one may have fewer. It is part of the protocol.
const chunkSize = 256 << 10

// codec serves the whole process, one chunk at a time: states that move shall not take all processors from the
// engines. It is made with the program, not when it is first used: its channels would then belong to a test's
// synctest bubble, and no other could use them.
var codec = newCompressor()

type compressor struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
	err     error // in the options
}

func newCompressor() *compressor {
	encoder, encoding := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(chunkSize), zstd.WithEncoderCRC(false)) // seal and checksum make up for its own one
	decoder, decoding := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(chunkSize), zstd.WithDecoderMaxWindow(chunkSize))
	if err := errors.Join(encoding, decoding); err != nil {
		return &compressor{err: err}
	}
	encoder.EncodeAll([]byte{0}, nil) // makes its channel
	return &compressor{encoder: encoder, decoder: decoder}
}

// deflate returns plain compressed, in memory of just that size. scratch is used on the way and returned to be
// used again.
func (c *compressor) deflate(plain, scratch []byte) (chunk, used []byte, err error) {
	if c.err != nil {
		return nil, scratch, c.err
	}
	used = c.encoder.EncodeAll(plain, scratch[:0])
	return bytes.Clone(used), used, nil
}

// inflate decompresses chunk into dst and fills it. A chunk that has more or less in it is an error, and never
// costs more memory than one of the right size.
func (c *compressor) inflate(dst, chunk []byte) error {
	if c.err != nil {
		return c.err
	}
	plain, err := c.decoder.DecodeAll(chunk, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	if len(plain) != len(dst) {
		return fmt.Errorf("decompressing: %d bytes, announced were %d", len(plain), len(dst))
	}
	copy(dst, plain) // in place already, unless the decoder took other memory
	return nil
}

// chunksOf returns how many chunks a state has.
func chunksOf(size int) int { return (size + chunkSize - 1) / chunkSize }

// plainSize returns how many bytes of a state are in one of its chunks.
func plainSize(size, number int) int { return min(chunkSize, size-number*chunkSize) }
