package token

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	migration = wirepb.Purpose_PURPOSE_MIGRATION
	transfer  = wirepb.Purpose_PURPOSE_STATE_TRANSFER
	health    = wirepb.Purpose_PURPOSE_HEALTH_CHECK
)

var claims = Claims{
	Purpose: migration, Session: 7, ConnectionID: "c0ffee", StreamID: 3,
	Source: "worker-a", Target: "worker-b", FromEpoch: 3, ToEpoch: 4,
}

var want = Want{Purpose: migration, Director: "director-1", Session: 7, Source: "worker-a", Target: "worker-b", Epoch: 4}

// scene is a director that makes tokens and a node that knows its keys.
type scene struct {
	*testing.T
	issuer   *Issuer
	verifier *Verifier
}

// play runs f in a bubble, where time passes only when everybody waits.
func play(t *testing.T, f func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t, NewIssuer(Config{Director: want.Director, TTL: MaxTTL, KeyLife: time.Hour, Rate: 1000}), NewVerifier()}
		s.setKeys(s.issuer)
		f(s)
	})
}

func (s *scene) setKeys(i *Issuer) {
	s.Helper()
	if err := s.verifier.SetKeys(i.cfg.Director, i.Keys()); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) issue(c Claims) *wirepb.SignedToken {
	s.Helper()
	signed, _, err := s.issuer.Issue(c)
	if err != nil {
		s.Fatal(err)
	}
	return signed
}

// forge signs a good token that was changed, with a key that counts.
func (s *scene) forge(change func(t *wirepb.Token)) *wirepb.SignedToken {
	s.Helper()
	token := s.issuer.token(claims)
	change(token)
	raw, err := proto.Marshal(token)
	if err != nil {
		s.Fatal(err)
	}
	return s.issuer.signing().sign(raw)
}

func (s *scene) accepts(signed *wirepb.SignedToken, w Want) *wirepb.Token {
	s.Helper()
	before := s.verifier.Counts().Accepted
	token, err := s.verifier.Verify(signed, w)
	if err != nil || s.verifier.Counts().Accepted != before+1 {
		s.Fatalf("a good token is refused: %v; %d accepted", err, s.verifier.Counts().Accepted)
	}
	return token
}

func (s *scene) refuses(signed *wirepb.SignedToken, w Want, code wire.Code) string {
	s.Helper()
	before := s.verifier.Counts()
	token, err := s.verifier.Verify(signed, w)
	if token != nil || !errors.Is(err, &wire.Error{Code: code}) {
		s.Fatalf("got %v, %v; want %s", token, err, code)
	}
	if before.Refused == nil {
		before.Refused = map[wire.Code]uint64{}
	}
	before.Refused[code]++
	if after := s.verifier.Counts(); after.Accepted != before.Accepted || !maps.Equal(after.Refused, before.Refused) {
		s.Fatalf("counts are %v, want %v", after, before)
	}
	return err.Error()
}

func change(signed *wirepb.SignedToken, f func(t *wirepb.SignedToken)) *wirepb.SignedToken {
	changed := proto.Clone(signed).(*wirepb.SignedToken)
	f(changed)
	return changed
}

// TestMisuse shows each way to misuse a token. Where the token itself is good it has to stay so.
func TestMisuse(t *testing.T) {
	wanting := func(change func(w *Want)) Want {
		w := want
		change(&w)
		return w
	}
	expire := func(in time.Duration) func(s *scene, _ *wirepb.SignedToken) *wirepb.SignedToken {
		return func(s *scene, _ *wirepb.SignedToken) *wirepb.SignedToken {
			return s.forge(func(t *wirepb.Token) { t.ExpiresUnixMs = time.Now().Add(in).UnixMilli() })
		}
	}
	forged := func(change func(t *wirepb.Token)) func(s *scene, _ *wirepb.SignedToken) *wirepb.SignedToken {
		return func(s *scene, _ *wirepb.SignedToken) *wirepb.SignedToken { return s.forge(change) }
	}
	changed := func(f func(t *wirepb.SignedToken)) func(s *scene, good *wirepb.SignedToken) *wirepb.SignedToken {
		return func(_ *scene, good *wirepb.SignedToken) *wirepb.SignedToken { return change(good, f) }
	}
	for _, c := range []struct {
		name string
		code wire.Code
		show func(s *scene, good *wirepb.SignedToken) *wirepb.SignedToken // nil shows the good one itself
		want Want
		text string // part of the message
	}{
		{"none", wire.CodeTokenMissing, func(*scene, *wirepb.SignedToken) *wirepb.SignedToken { return nil }, want, "needed"},
		{"empty", wire.CodeTokenTampered, changed(func(t *wirepb.SignedToken) { proto.Reset(t) }), want, "0, 0 and 0 bytes"},
		{"huge", wire.CodeTokenTampered, changed(func(t *wirepb.SignedToken) { t.Token = make([]byte, 1<<20) }), want, "1048576"},
		{"short key id", wire.CodeTokenTampered, changed(func(t *wirepb.SignedToken) { t.KeyId = t.KeyId[:7] }), want, " 7 and"},
		{"long signature", wire.CodeTokenTampered, changed(func(t *wirepb.SignedToken) { t.Signature = append(t.Signature, 0) }), want, "65"},
		{"no signature", wire.CodeTokenTampered, changed(func(t *wirepb.SignedToken) { t.Signature = make([]byte, 64) }), want, "signature"},
		{"more than was signed", wire.CodeTokenTampered, changed(func(t *wirepb.SignedToken) { t.Token = append(t.Token, 0x20, 8) }), want, "signature"},
		{"signature of another", wire.CodeTokenTampered, func(s *scene, good *wirepb.SignedToken) *wirepb.SignedToken {
			other := s.issue(claims)
			return change(good, func(t *wirepb.SignedToken) { t.Signature = other.Signature })
		}, want, "signature"},
		{"unknown key", wire.CodeTokenKey, func(_ *scene, good *wirepb.SignedToken) *wirepb.SignedToken {
			return newKey().sign(good.Token)
		}, want, "known here"},
		{"own key under a known id", wire.CodeTokenTampered, func(_ *scene, good *wirepb.SignedToken) *wirepb.SignedToken {
			return change(newKey().sign(good.Token), func(t *wirepb.SignedToken) { t.KeyId = good.KeyId })
		}, want, "signature"},
		{"signed by the wrong director", wire.CodeTokenKey, forged(func(t *wirepb.Token) { t.Director = "director-2" }), want, `"director-2"`},
		{"signed, but not a token", wire.CodeTokenTampered, func(s *scene, _ *wirepb.SignedToken) *wirepb.SignedToken {
			return s.issuer.signing().sign([]byte("\xff"))
		}, want, "no token"},
		{"signed, but nothing", wire.CodeTokenTampered, func(s *scene, _ *wirepb.SignedToken) *wirepb.SignedToken {
			return s.issuer.signing().sign(nil)
		}, want, "id has 0 bytes"},
		{"short id", wire.CodeTokenTampered, forged(func(t *wirepb.Token) { t.Id = t.Id[:31] }), want, "31"},
		{"no purpose", wire.CodeTokenTampered, forged(func(t *wirepb.Token) { t.Purpose = 0 }), want, "purpose 0"},
		{"purpose from the future", wire.CodeTokenTampered, forged(func(t *wirepb.Token) { t.Purpose = 5 }), want, "purpose 5"},
		{"no director", wire.CodeTokenTampered, forged(func(t *wirepb.Token) { t.Director = "" }), want, "director"},
		{"for anybody", wire.CodeTokenTampered, forged(func(t *wirepb.Token) { t.Target = "" }), want, "target"},
		{"for all sessions", wire.CodeTokenTampered, forged(func(t *wirepb.Token) { t.Session = 0 }), want, "session"},
		{"expired", wire.CodeTokenExpired, expire(-1500 * time.Millisecond), want, "1.5s ago"},
		{"expired just now", wire.CodeTokenExpired, expire(0), want, "0s ago"},
		{"expired long ago", wire.CodeTokenExpired, forged(func(t *wirepb.Token) { t.ExpiresUnixMs = -1 << 63 }), want, "ago"},
		{"never expires", wire.CodeTokenExpired, forged(func(t *wirepb.Token) { t.ExpiresUnixMs = 1<<63 - 1 }), want, "allowed are 30s"},
		{"expires too late", wire.CodeTokenExpired, expire(36 * time.Second), want, "in 36s"},
		{"too late, and again", wire.CodeTokenExpired, expire(36 * time.Second), wanting(func(w *Want) { w.Again = true }), "in 36s"},
		{"other purpose", wire.CodeTokenPurpose, nil, wanting(func(w *Want) { w.Purpose = transfer }), "MIGRATION, not PURPOSE_STATE_TRANSFER"},
		{"nothing wanted", wire.CodeTokenPurpose, nil, Want{}, "UNSPECIFIED"},
		{"other director", wire.CodeTokenSession, nil, wanting(func(w *Want) { w.Director = "director-2" }), `"director-1", not "director-2"`},
		{"other session", wire.CodeTokenSession, nil, wanting(func(w *Want) { w.Session = 8 }), "7, not 8"},
		{"other source", wire.CodeTokenTarget, nil, wanting(func(w *Want) { w.Source = "worker-c" }), `source "worker-a", not "worker-c"`},
		{"other target", wire.CodeTokenTarget, nil, wanting(func(w *Want) { w.Target = "worker-c" }), `target "worker-b", not "worker-c"`},
		{"other epoch", wire.CodeTokenEpoch, nil, wanting(func(w *Want) { w.Epoch = 5 }), "to epoch 4, not 5"},
		{"leads nowhere", wire.CodeTokenEpoch, forged(func(t *wirepb.Token) { t.FromEpoch = 4 }), want, "from epoch 4 to 4"},
		{"leads back", wire.CodeTokenEpoch, forged(func(t *wirepb.Token) { t.FromEpoch = 5 }), want, "from epoch 5 to 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, func(s *scene) {
				good := s.issue(claims)
				shown := good
				if c.show != nil {
					shown = c.show(s, good)
				}
				for range 3 { // refusing it must not change anything
					text := s.refuses(shown, c.want, c.code)
					if !strings.Contains(text, c.text) {
						t.Errorf("the message is %q, want %q in it", text, c.text)
					}
					checkSecrets(t, text, good)
				}
				s.accepts(good, want)
			})
		})
	}
}

// checkSecrets checks that a message, which is logged and sent, has nothing in it that is worth stealing.
func checkSecrets(t *testing.T, text string, signed *wirepb.SignedToken) {
	t.Helper()
	token := &wirepb.Token{}
	if err := proto.Unmarshal(signed.GetToken(), token); err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{token.GetId(), signed.GetSignature()} {
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret)} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form[:10])) {
				t.Errorf("the message tells a secret: %s", text)
			}
		}
	}
}

func TestTokenSaysWhatWasClaimed(t *testing.T) {
	play(t, func(s *scene) {
		signed, id, err := s.issuer.Issue(claims)
		if err != nil || len(id) != IDSize {
			t.Fatal(id, err)
		}
		got := s.accepts(signed, want)
		meant := &wirepb.Token{
			Id: id, Purpose: migration, Director: "director-1", Session: 7, ConnectionId: "c0ffee", StreamId: 3,
			Source: "worker-a", Target: "worker-b", FromEpoch: 3, ToEpoch: 4,
			ExpiresUnixMs: time.Now().Add(MaxTTL).UnixMilli(),
		}
		if !proto.Equal(got, meant) {
			t.Fatalf("got %v, want %v", got, meant)
		}
		s.accepts(s.issue(claims), Want{Purpose: migration}) // the rest may be anything
	})
}

// TestNoBitMayChange flips each bit of a token on its way.
func TestNoBitMayChange(t *testing.T) {
	play(t, func(s *scene) {
		good := s.issue(claims)
		shown := proto.Clone(good).(*wirepb.SignedToken)
		for _, part := range [][]byte{shown.Token, shown.KeyId, shown.Signature} {
			for bit := range 8 * len(part) {
				part[bit/8] ^= 1 << (bit % 8)
				if _, err := s.verifier.Verify(shown, Want{Purpose: migration, Again: true}); err == nil {
					t.Fatalf("bit %d of %d bytes does not count", bit, len(part))
				}
				part[bit/8] ^= 1 << (bit % 8)
			}
		}
		s.accepts(shown, want)
	})
}

func TestExpiry(t *testing.T) {
	play(t, func(s *scene) {
		first, second := s.issue(claims), s.issue(claims)
		time.Sleep(MaxTTL - time.Millisecond)
		s.accepts(first, want)
		time.Sleep(time.Millisecond)
		s.refuses(first, want, wire.CodeTokenExpired)
		s.refuses(second, want, wire.CodeTokenExpired)
		s.accepts(s.issue(claims), want)
	})
	for ttl, lasts := range map[time.Duration]time.Duration{0: MaxTTL, time.Second: time.Second, time.Hour: MaxTTL} {
		play(t, func(s *scene) {
			s.issuer = NewIssuer(Config{Director: want.Director, TTL: ttl, Rate: 1})
			s.setKeys(s.issuer)
			token := s.accepts(s.issue(claims), want)
			if left := time.Until(time.UnixMilli(token.GetExpiresUnixMs())); left != lasts {
				t.Errorf("with a TTL of %s a token lasts %s", ttl, left)
			}
		})
	}
}

func TestUsedOnce(t *testing.T) {
	play(t, func(s *scene) {
		good := s.issue(claims)
		s.accepts(good, want)
		for range 29 { // for as long as it could count
			s.refuses(good, want, wire.CodeTokenReplayed)
			time.Sleep(time.Second)
		}
		s.verifier.Forget(want.Director)
		s.refuses(good, want, wire.CodeTokenKey)
		s.setKeys(s.issuer) // the director comes back
		s.refuses(good, want, wire.CodeTokenReplayed)
		s.accepts(s.issue(claims), want)
	})
}

// TestUsedOnceAtOnce shows one token from many sides while everything else goes on.
func TestUsedOnceAtOnce(t *testing.T) {
	const rounds, shows = 20, 16
	s := &scene{t, NewIssuer(Config{Director: want.Director, Rate: 1 << 20}), NewVerifier()}
	s.setKeys(s.issuer)
	var wg sync.WaitGroup
	for round := range uint64(rounds) {
		c, w := claims, want
		c.Session, w.Session = round+1, round+1
		signed := s.issue(c)
		for range shows {
			wg.Go(func() { _, _ = s.verifier.Verify(signed, w) })
		}
		wg.Go(func() {
			s.issuer.Rotate()
			_, _, _ = s.issuer.Issue(claims)
			_ = s.verifier.SetKeys(want.Director, s.issuer.Keys())
			s.verifier.Revoke(want.Director, 1000+round, 1)
			s.verifier.Forget("another")
			s.verifier.Counts()
		})
	}
	wg.Wait()
	if c := s.verifier.Counts(); c.Accepted != rounds || c.Refused[wire.CodeTokenReplayed] != rounds*(shows-1) {
		t.Fatalf("%d tokens were accepted %d times; refused: %v", rounds, c.Accepted, c.Refused)
	}
}

func TestOlderEpoch(t *testing.T) {
	later, loose := claims, Want{Purpose: migration}
	later.FromEpoch, later.ToEpoch = 4, 5
	play(t, func(s *scene) {
		old, twin, other := s.issue(claims), s.issue(later), later
		other.Session = 8
		s.accepts(s.issue(other), loose)
		s.accepts(s.issue(later), loose)
		if text := s.refuses(old, loose, wire.CodeTokenEpoch); !strings.Contains(text, "to epoch 4, the session is in 5") {
			t.Error(text)
		}
		s.accepts(twin, loose) // the same epoch is not older
		third := claims        // nor is it for something else
		third.Purpose = transfer
		s.accepts(s.issue(third), Want{Purpose: transfer})
		s.refuses(old, Want{Purpose: migration, Again: true}, wire.CodeTokenEpoch)
		s.accepts(s.forge(func(t *wirepb.Token) {
			t.ToEpoch, t.ExpiresUnixMs = 5, time.Now().Add(time.Second).UnixMilli()
		}), loose)
		time.Sleep(MaxTTL - time.Second) // that one is forgotten, but not the epoch
		s.refuses(old, loose, wire.CodeTokenEpoch)
	})
}

func TestRevoked(t *testing.T) {
	later, other := claims, claims
	later.FromEpoch, later.ToEpoch = 4, 5
	other.Session = 8
	play(t, func(s *scene) {
		good, loose := s.issue(claims), Want{Purpose: migration}
		s.verifier.Revoke("director-2", 7, 9) // numbers its sessions by itself
		s.verifier.Revoke(want.Director, 7, 4)
		s.verifier.Revoke(want.Director, 7, 2) // takes nothing back
		s.refuses(good, want, wire.CodeTokenRevoked)
		s.refuses(good, Want{Purpose: migration, Again: true}, wire.CodeTokenRevoked)
		s.accepts(s.issue(other), loose)
		fresh := s.issue(later)
		s.accepts(fresh, loose)
		s.verifier.Revoke(want.Director, 7, 5)
		s.refuses(fresh, loose, wire.CodeTokenRevoked)
		time.Sleep(MaxTTL - time.Second) // remembered for as long as they could count
		s.refuses(fresh, loose, wire.CodeTokenRevoked)
		time.Sleep(revokedFor)
		s.accepts(s.issue(other), loose)
		if n := len(s.verifier.memory.revoked); n != 0 {
			t.Fatalf("%d revocations are still remembered", n)
		}
	})
}

// TestAgain resumes a transfer with the token that opened it.
func TestAgain(t *testing.T) {
	again := want
	again.Again = true
	play(t, func(s *scene) {
		opened, never := s.issue(claims), s.issue(claims)
		s.accepts(opened, want)
		s.accepts(opened, again)
		s.accepts(never, again) // the caller says that it opened a transfer: then it has been used
		s.refuses(never, want, wire.CodeTokenReplayed)
		time.Sleep(10 * MaxTTL)
		s.accepts(opened, again)
		s.refuses(opened, want, wire.CodeTokenExpired)
		elsewhere := again
		elsewhere.Target = "worker-c"
		s.refuses(opened, elsewhere, wire.CodeTokenTarget)
		if n := len(s.verifier.memory.used); n != 0 {
			t.Fatalf("%d tokens are remembered that have expired", n)
		}
	})
}

func TestHealthCheckHasNoEpochs(t *testing.T) {
	check := Claims{Purpose: health, Source: "director-1", Target: "worker-b"}
	w := Want{Purpose: health, Director: "director-1", Target: "worker-b"}
	play(t, func(s *scene) {
		signed := s.issue(check)
		s.accepts(signed, w)
		s.refuses(signed, w, wire.CodeTokenReplayed)
		check.ToEpoch = 3
		s.accepts(s.issue(check), w)
		check.ToEpoch = 0
		s.accepts(s.issue(check), w)
		s.refuses(s.issue(check), want, wire.CodeTokenPurpose)
	})
}

func TestDirectorsDoNotDisturbEachOther(t *testing.T) {
	play(t, func(s *scene) {
		other := NewIssuer(Config{Director: "director-2", Rate: 100})
		stolen := s.issuer.Keys()
		for _, keys := range []*wirepb.TokenKeys{
			other.Keys(), // of its own
			stolen,       // those of the first one
			{Keys: []*wirepb.TokenKeys_Key{{Id: s.issuer.current.id, PublicKey: other.Keys().Keys[0].PublicKey}}}, // under their id
		} {
			if err := s.verifier.SetKeys("director-2", keys); err != nil {
				t.Fatal(err)
			}
			s.accepts(s.issue(claims), want)
			token := other.token(claims)
			token.Director = "director-1"
			raw, err := proto.Marshal(token)
			if err != nil {
				t.Fatal(err)
			}
			signed := other.current.sign(raw)
			signed.KeyId = keys.Keys[0].Id
			if _, err := s.verifier.Verify(signed, want); err == nil {
				t.Fatal("director 2 can speak for director 1")
			}
		}
		s.verifier.Forget("director-2")
		s.accepts(s.issue(claims), want)
	})
}

// TestOwnIds has a director that uses an id of another.
func TestOwnIds(t *testing.T) {
	play(t, func(s *scene) {
		other := NewIssuer(Config{Director: "director-2"})
		s.setKeys(other)
		signed, id, err := s.issuer.Issue(claims)
		if err != nil {
			t.Fatal(err)
		}
		token := other.token(claims)
		token.Id = id
		raw, err := proto.Marshal(token)
		if err != nil {
			t.Fatal(err)
		}
		s.accepts(other.current.sign(raw), Want{Purpose: migration})
		s.accepts(signed, want)
		s.refuses(signed, want, wire.CodeTokenReplayed)
	})
}

// TestClockSetBack lets a used token come back to life: it is still remembered.
func TestClockSetBack(t *testing.T) {
	play(t, func(s *scene) {
		token := s.accepts(s.issue(claims), want)
		time.Sleep(MaxTTL + 2*time.Second)
		s.accepts(s.issue(claims), want) // a time to forget
		if refusal := s.verifier.accept(token, want, time.Now().Add(-3*time.Second)); refusal == nil || refusal.Code != wire.CodeTokenReplayed {
			t.Fatalf("got %v", refusal)
		}
	})
}

func TestSetKeysKeepsWhatIsRight(t *testing.T) {
	play(t, func(s *scene) {
		k := s.issuer.Keys().Keys[0]
		for name, keys := range map[string]*wirepb.TokenKeys{
			"three":      {Keys: []*wirepb.TokenKeys_Key{k, k, k}},
			"short id":   {Keys: []*wirepb.TokenKeys_Key{{Id: k.Id[:7], PublicKey: k.PublicKey}}},
			"no key":     {Keys: []*wirepb.TokenKeys_Key{k, {Id: k.Id}}},
			"empty":      {Keys: []*wirepb.TokenKeys_Key{k, {}}},
			"nil":        {Keys: []*wirepb.TokenKeys_Key{nil}},
			"longer key": {Keys: []*wirepb.TokenKeys_Key{{Id: k.Id, PublicKey: append(k.PublicKey, 0)}}},
		} {
			if err := s.verifier.SetKeys(want.Director, keys); !errors.Is(err, &wire.Error{Code: wire.CodeProtocol}) {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.accepts(s.issue(claims), want)
		mine := proto.Clone(s.issuer.Keys()).(*wirepb.TokenKeys)
		if err := s.verifier.SetKeys(want.Director, mine); err != nil {
			t.Fatal(err)
		}
		clear(mine.Keys[0].PublicKey)
		clear(mine.Keys[0].Id)
		s.accepts(s.issue(claims), want)
		if err := s.verifier.SetKeys(want.Director, nil); err != nil {
			t.Fatal(err)
		}
		s.refuses(s.issue(claims), want, wire.CodeTokenKey)
	})
}

// TestMemoryIsBounded fills what a Verifier may remember. Full, it refuses what it could not remember.
func TestMemoryIsBounded(t *testing.T) {
	const limit = 8
	play(t, func(s *scene) {
		m := &s.verifier.memory
		m.limit = limit
		var signed []*wirepb.SignedToken
		for i := range uint64(limit + 2) {
			c := claims
			c.Session += i
			signed = append(signed, s.issue(c))
		}
		loose := Want{Purpose: migration}
		for _, token := range signed[:limit] {
			s.accepts(token, loose)
		}
		time.Sleep(MaxTTL / 2)
		s.refuses(signed[limit], loose, wire.CodeTokenRate)
		s.refuses(signed[0], loose, wire.CodeTokenReplayed)
		again := loose
		again.Again = true
		s.accepts(signed[0], again) // needs no new place
		time.Sleep(MaxTTL)
		s.accepts(s.issue(claims), loose)
		if len(m.used) != 1 || len(m.epochs) != 1 {
			t.Fatalf("%d tokens and %d epochs are remembered", len(m.used), len(m.epochs))
		}
	})
}

func TestRevocationsAreBounded(t *testing.T) {
	const limit = 8
	play(t, func(s *scene) {
		m := &s.verifier.memory
		m.limit = limit
		for session := range uint64(limit) {
			s.verifier.Revoke(want.Director, 100+session, 4)
		}
		s.accepts(s.issue(claims), want)
		s.verifier.Revoke(want.Director, 100, 5) // has its place
		s.accepts(s.issue(claims), want)
		s.verifier.Revoke(want.Director, 7, 4) // has none
		s.refuses(s.issue(claims), want, wire.CodeTokenRate)
		if len(m.revoked) != limit {
			t.Fatalf("%d revocations are remembered", len(m.revoked))
		}
		time.Sleep(revokedFor)
		s.accepts(s.issue(claims), want)
	})
}
