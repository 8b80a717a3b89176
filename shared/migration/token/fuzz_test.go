package token

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// All bubbles begin at the same moment: so an input that failed once fails again.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// fuzzToken returns a token that is good at the beginning of a bubble.
func fuzzToken(tb testing.TB, change func(t *wirepb.Token)) []byte {
	tb.Helper()
	token := NewIssuer(Config{Director: want.Director}).token(claims)
	token.Secret = bytes.Repeat([]byte{2}, SecretSize)
	token.ExpiresUnixMs = bubbleStart.Add(MaxTTL).UnixMilli()
	change(token)
	raw, err := proto.Marshal(token)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// FuzzAllow gives a holder anything in place of a token, and shows anything in place of a secret. What is accepted is what
// was wanted, and only once; another token is as good as before.
func FuzzAllow(f *testing.F) {
	secret := bytes.Repeat([]byte{2}, SecretSize)
	for _, change := range []func(t *wirepb.Token){
		func(*wirepb.Token) {},
		func(t *wirepb.Token) { t.Purpose = transfer },
		func(t *wirepb.Token) { t.ExpiresUnixMs = -1 << 63 },
		func(t *wirepb.Token) { t.ExpiresUnixMs = 1<<63 - 1 },
		func(t *wirepb.Token) { t.FromEpoch = 1<<64 - 1 },
		func(t *wirepb.Token) { t.Target = "worker-c" },
		func(t *wirepb.Token) { t.Director = "director-2" },
	} {
		f.Add(fuzzToken(f, change), secret, int32(migration), uint64(7), uint64(4))
	}
	f.Add([]byte{}, []byte{}, int32(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, raw, secret []byte, purpose int32, session, epoch uint64) {
		token := &wirepb.Token{}
		if proto.Unmarshal(raw, token) != nil {
			return
		}
		play(t, func(s *scene) {
			good := s.give(claims)
			checkCode(t, s.grants.Allow(token), wire.CodeProtocol)
			w := Want{Purpose: wirepb.Purpose(purpose), Director: want.Director, Session: session, Target: want.Target, Epoch: epoch}
			got, err := s.holder.Show(secret, w)
			checkCode(t, err, "")
			if err == nil {
				left := time.Until(time.UnixMilli(got.GetExpiresUnixMs()))
				if !bytes.Equal(got.GetSecret(), secret) || got.GetPurpose() != w.Purpose || got.GetDirector() != w.Director ||
					got.GetTarget() != w.Target || session != 0 && got.GetSession() != session || epoch != 0 && got.GetToEpoch() != epoch ||
					got.GetFromEpoch() >= got.GetToEpoch() || left <= 0 || left > MaxTTL+skew {
					t.Fatalf("%v is not what was wanted: %v", got, w)
				}
				if _, err := s.holder.Show(secret, w); !errors.Is(err, &wire.Error{Code: wire.CodeTokenReplayed}) {
					t.Fatalf("accepted twice: %v", err)
				}
				return // and its session may have got ahead
			}
			s.accepts(good, want)
		})
	})
}

// checkCode checks that a refusal has the code, or one of those of tokens, and can be sent.
func checkCode(t *testing.T, err error, code wire.Code) {
	t.Helper()
	var refusal *wire.Error
	if err == nil {
		return
	}
	if !errors.As(err, &refusal) || code != "" && refusal.Code != code ||
		code == "" && (len(refusal.Code) < len("token_") || refusal.Code[:6] != "token_") {
		t.Fatalf("undocumented error: %v", err)
	}
	if _, err := proto.Marshal(refusal.Proto()); err != nil {
		t.Fatal(err)
	}
}
