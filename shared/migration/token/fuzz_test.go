package token

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// All bubbles begin at the same moment, and the key is always the same: so an input that failed once fails again.
var (
	bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	fuzzKey     = keyOf(bytes.Repeat([]byte{1}, ed25519.SeedSize))
)

// fuzzToken returns a token that is good at the beginning of a bubble.
func fuzzToken(tb testing.TB, change func(t *wirepb.Token)) []byte {
	tb.Helper()
	token := NewIssuer(Config{Director: want.Director}).token(claims)
	token.Id = bytes.Repeat([]byte{2}, IDSize)
	token.ExpiresUnixMs = bubbleStart.Add(MaxTTL).UnixMilli()
	change(token)
	raw, err := proto.Marshal(token)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func fuzzVerifier(t *testing.T) *Verifier {
	t.Helper()
	v := NewVerifier()
	keys := &wirepb.TokenKeys{Keys: []*wirepb.TokenKeys_Key{fuzzKey.proto()}}
	if err := v.SetKeys(want.Director, keys); err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzVerify shows anything in place of a token. Only the token that was signed is ever accepted.
func FuzzVerify(f *testing.F) {
	good := fuzzKey.sign(fuzzToken(f, func(*wirepb.Token) {}))
	later := fuzzToken(f, func(t *wirepb.Token) { t.ToEpoch = 5 })
	f.Add(good.Token, good.KeyId, good.Signature)
	f.Add(later, good.KeyId, good.Signature)
	f.Add(append(slices.Clone(good.Token), 0x50, 5), good.KeyId, good.Signature)
	f.Add(good.Token, []byte("12345678"), good.Signature)
	f.Add(good.Token, good.KeyId, append(slices.Clone(good.Signature[:63]), good.Signature[63]^0x80))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, token, keyID, signature []byte) {
		synctest.Test(t, func(t *testing.T) {
			v := fuzzVerifier(t)
			_, err := v.Verify(&wirepb.SignedToken{Token: token, KeyId: keyID, Signature: signature}, Want{Purpose: migration})
			same := bytes.Equal(token, good.Token) && bytes.Equal(keyID, good.KeyId) && bytes.Equal(signature, good.Signature)
			if (err == nil) != same {
				t.Fatalf("the token as it was signed: %v; %v", same, err)
			}
			checkCode(t, err)
			if _, err := v.Verify(good, want); (err == nil) == same {
				t.Fatalf("the good token afterwards: %v", err)
			}
		})
	})
}

// FuzzSigned signs anything with a key that counts. What is accepted is what was wanted, and only once.
func FuzzSigned(f *testing.F) {
	for _, change := range []func(t *wirepb.Token){
		func(*wirepb.Token) {},
		func(t *wirepb.Token) { t.Purpose = health; t.Session = 0 },
		func(t *wirepb.Token) { t.ExpiresUnixMs = -1 << 63 },
		func(t *wirepb.Token) { t.ExpiresUnixMs = 1<<63 - 1 },
		func(t *wirepb.Token) { t.FromEpoch = 1<<64 - 1 },
		func(t *wirepb.Token) { t.Target = "worker-c" },
		func(t *wirepb.Token) { t.Director = "director-2" },
	} {
		f.Add(fuzzToken(f, change), int32(migration), uint64(7), uint64(4))
	}
	f.Fuzz(func(t *testing.T, raw []byte, purpose int32, session, epoch uint64) {
		synctest.Test(t, func(t *testing.T) {
			w := Want{Purpose: wirepb.Purpose(purpose), Director: want.Director, Session: session, Target: want.Target, Epoch: epoch}
			v, signed := fuzzVerifier(t), fuzzKey.sign(raw)
			token, err := v.Verify(signed, w)
			checkCode(t, err)
			if err != nil {
				return
			}
			left := time.Until(time.UnixMilli(token.GetExpiresUnixMs()))
			if token.GetPurpose() != w.Purpose || token.GetDirector() != w.Director || token.GetTarget() != w.Target ||
				session != 0 && token.GetSession() != session || epoch != 0 && token.GetToEpoch() != epoch ||
				ofSession(token) && token.GetFromEpoch() >= token.GetToEpoch() || left <= 0 || left > MaxTTL+skew {
				t.Fatalf("%v is not what was wanted: %v", token, w)
			}
			if _, err := v.Verify(signed, w); !errors.Is(err, &wire.Error{Code: wire.CodeTokenReplayed}) {
				t.Fatalf("accepted twice: %v", err)
			}
		})
	})
}

// checkCode checks that a refusal has a code, and can be sent.
func checkCode(t *testing.T, err error) {
	t.Helper()
	var refusal *wire.Error
	if err == nil {
		return
	}
	if !errors.As(err, &refusal) || len(refusal.Code) < len("token_") || refusal.Code[:6] != "token_" {
		t.Fatalf("undocumented error: %v", err)
	}
	if _, err := proto.Marshal(refusal.Proto()); err != nil {
		t.Fatal(err)
	}
}
