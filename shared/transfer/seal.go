package transfer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	sealLabel = "connswap state transfer 1"
	// secretSize is how many random bytes both ends and the director share.
	secretSize = 32
	keySize    = 32 // AES-256
	overhead   = 16 // bytes that a seal adds
)

// seal closes and opens the chunks of one snapshot, for one token.
//
// The nonce is the chunk's number. That is safe because a key belongs to one snapshot: token, sequence, size and
// checksum are in it, and a Server serves no other snapshot for a token that it knows. A transfer that goes on
// after a lost connection may send a chunk again, but it is the very same bytes under the same nonce.
type seal struct {
	aead   cipher.AEAD
	header *wirepb.Snapshot
}

func newSeal(token *wirepb.Token, header *wirepb.Snapshot) (*seal, error) {
	if len(token.GetSecret()) != secretSize {
		return nil, fmt.Errorf("a token's secret of %d bytes, want %d", len(token.GetSecret()), secretSize)
	}
	key, err := hkdf.Key(sha256.New, token.GetSecret(), nil, string(sealContext(token, header)), keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &seal{aead: aead, header: header}, nil
}

// sealContext is all that a key is bound to. What varies in length has its length before it.
func sealContext(token *wirepb.Token, header *wirepb.Snapshot) []byte {
	var b []byte
	for _, text := range []string{
		sealLabel, token.GetConnectionId(), token.GetSource(), token.GetTarget(), token.GetDirector(),
		string(header.GetChecksum()),
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
		b = append(b, text...)
	}
	for _, number := range []uint64{
		token.GetStreamId(), token.GetFromEpoch(), token.GetToEpoch(), token.GetSession(),
		header.GetSequence(), header.GetSize(),
	} {
		b = binary.BigEndian.AppendUint64(b, number)
	}
	return b
}

// close appends the sealed chunk to dst.
func (s *seal) close(dst []byte, number uint32, chunk []byte) []byte {
	return s.aead.Seal(dst, nonce(number), chunk, s.additional(number))
}

// open returns what was sealed, in its memory. It fails for a chunk of another place, snapshot or token.
func (s *seal) open(number uint32, sealed []byte) ([]byte, error) {
	return s.aead.Open(sealed[:0], nonce(number), sealed, s.additional(number))
}

func nonce(number uint32) []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 8, 12), number)
}

func (s *seal) additional(number uint32) []byte {
	b := make([]byte, 0, 24)
	b = binary.BigEndian.AppendUint64(b, s.header.GetSequence())
	b = binary.BigEndian.AppendUint64(b, s.header.GetSize())
	b = binary.BigEndian.AppendUint32(b, s.header.GetChunks())
	return binary.BigEndian.AppendUint32(b, number)
}
