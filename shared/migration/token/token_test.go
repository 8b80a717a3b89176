package token

import (
	"context"
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
)

var claims = Claims{
	Purpose: migration, Session: 7, ConnectionID: "c0ffee", StreamID: 3,
	Source: "worker-a", Target: "worker-b", FromEpoch: 3, ToEpoch: 4,
}

var want = Want{Purpose: migration, Director: "director-1", Session: 7, Source: "worker-a", Target: "worker-b", Epoch: 4}

// scene is a director that makes tokens, and a node that holds them.
type scene struct {
	*testing.T
	issuer *Issuer
	holder *Holder
	grants *Grants // of the director
}

func newScene(t *testing.T) *scene {
	h := NewHolder()
	return &scene{t, NewIssuer(Config{Director: want.Director, TTL: MaxTTL, Rate: 1 << 20}), h, h.Join(want.Director)}
}

// play runs f in a bubble, where time passes only when everybody waits.
func play(t *testing.T, f func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newScene(t)) })
}

// issue makes a token that nobody holds yet.
func (s *scene) issue(c Claims) *wirepb.Token {
	s.Helper()
	token, err := s.issuer.Issue(c)
	if err != nil {
		s.Fatal(err)
	}
	return token
}

// give makes a token and gives it to the holder. It returns the secret.
func (s *scene) give(c Claims) []byte {
	s.Helper()
	return s.allow(s.grants, s.issue(c))
}

func (s *scene) allow(g *Grants, t *wirepb.Token) []byte {
	s.Helper()
	if err := g.Allow(t); err != nil {
		s.Fatal(err)
	}
	return t.GetSecret()
}

// giveLate gives a token that expires in so long.
func (s *scene) giveLate(in time.Duration) []byte {
	s.Helper()
	t := s.issue(claims)
	t.ExpiresUnixMs = time.Now().Add(in).UnixMilli()
	return s.allow(s.grants, t)
}

func (s *scene) accepts(secret []byte, w Want) *wirepb.Token {
	s.Helper()
	before := s.holder.Counts().Accepted
	token, err := s.holder.Show(secret, w)
	if err != nil || s.holder.Counts().Accepted != before+1 {
		s.Fatalf("a good token is refused: %v; %d accepted", err, s.holder.Counts().Accepted)
	}
	return token
}

func (s *scene) refuses(secret []byte, w Want, code wire.Code) string {
	s.Helper()
	before := s.holder.Counts()
	token, err := s.holder.Show(secret, w)
	if token != nil || !errors.Is(err, &wire.Error{Code: code}) {
		s.Fatalf("got %v, %v; want %s", token, err, code)
	}
	before.Refused[code]++
	if after := s.holder.Counts(); after.Accepted != before.Accepted || !maps.Equal(after.Refused, before.Refused) {
		s.Fatalf("counts are %v, want %v", after, before)
	}
	return err.Error()
}

// TestMisuse shows each way to misuse a token. Where the token itself is good it has to stay so.
func TestMisuse(t *testing.T) {
	wanting := func(change func(w *Want)) Want {
		w := want
		change(&w)
		return w
	}
	expire := func(in time.Duration) func(s *scene, _ []byte) []byte {
		return func(s *scene, _ []byte) []byte { return s.giveLate(in) }
	}
	at := func(unixMs int64) func(s *scene, _ []byte) []byte {
		return func(s *scene, _ []byte) []byte {
			t := s.issue(claims)
			t.ExpiresUnixMs = unixMs
			return s.allow(s.grants, t)
		}
	}
	changed := func(f func(secret []byte) []byte) func(s *scene, good []byte) []byte {
		return func(_ *scene, good []byte) []byte { return f(append([]byte(nil), good...)) }
	}
	for _, c := range []struct {
		name string
		code wire.Code
		show func(s *scene, good []byte) []byte // nil shows the good one itself
		want Want
		text string // part of the message
	}{
		{"none", wire.CodeTokenMissing, func(*scene, []byte) []byte { return nil }, want, "needed"},
		{"empty", wire.CodeTokenMissing, changed(func(b []byte) []byte { return b[:0] }), want, "needed"},
		{"huge", wire.CodeTokenTampered, changed(func([]byte) []byte { return make([]byte, 1<<20) }), want, "1048576"},
		{"short", wire.CodeTokenTampered, changed(func(b []byte) []byte { return b[:31] }), want, "31 bytes"},
		{"long", wire.CodeTokenTampered, changed(func(b []byte) []byte { return append(b, 0) }), want, "33 bytes"},
		{"guessed", wire.CodeTokenUnknown, changed(func([]byte) []byte { return make([]byte, SecretSize) }), want, "no director"},
		{"turned around", wire.CodeTokenUnknown, changed(func(b []byte) []byte { return append(b[16:], b[:16]...) }), want, "no director"},
		{"never given", wire.CodeTokenUnknown, func(s *scene, _ []byte) []byte { return s.issue(claims).GetSecret() }, want, "no director"},
		{"expired", wire.CodeTokenExpired, expire(-1500 * time.Millisecond), want, "1.5s ago"},
		{"expired just now", wire.CodeTokenExpired, expire(0), want, "0s ago"},
		{"expired long ago", wire.CodeTokenExpired, at(-1 << 63), want, "ago"},
		{"never expires", wire.CodeTokenExpired, at(1<<63 - 1), want, "allowed are 30s"},
		{"expires too late", wire.CodeTokenExpired, expire(36 * time.Second), want, "in 36s"},
		{"other purpose", wire.CodeTokenPurpose, nil, wanting(func(w *Want) { w.Purpose = transfer }), "MIGRATION, not PURPOSE_STATE_TRANSFER"},
		{"nothing wanted", wire.CodeTokenPurpose, nil, Want{}, "UNSPECIFIED"},
		{"other director", wire.CodeTokenSession, nil, wanting(func(w *Want) { w.Director = "director-2" }), `"director-1", not "director-2"`},
		{"other session", wire.CodeTokenSession, nil, wanting(func(w *Want) { w.Session = 8 }), "7, not 8"},
		{"other source", wire.CodeTokenTarget, nil, wanting(func(w *Want) { w.Source = "worker-c" }), `source "worker-a", not "worker-c"`},
		{"other target", wire.CodeTokenTarget, nil, wanting(func(w *Want) { w.Target = "worker-c" }), `target "worker-b", not "worker-c"`},
		{"other epoch", wire.CodeTokenEpoch, nil, wanting(func(w *Want) { w.Epoch = 5 }), "to epoch 4, not 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, func(s *scene) {
				good := s.give(claims)
				shown := good
				if c.show != nil {
					shown = c.show(s, good)
				}
				for range 3 { // refusing it must not change anything
					text := s.refuses(shown, c.want, c.code)
					if !strings.Contains(text, c.text) {
						t.Errorf("the message is %q, want %q in it", text, c.text)
					}
					checkSecrets(t, text, good, shown)
				}
				s.accepts(good, want)
			})
		})
	}
}

// checkSecrets checks that a message, which is logged and sent, has nothing in it that is worth stealing.
func checkSecrets(t *testing.T, text string, secrets ...[]byte) {
	t.Helper()
	for _, secret := range secrets {
		if len(secret) < SecretSize {
			continue
		}
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret)} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form[:10])) {
				t.Errorf("the message tells a secret: %s", text)
			}
		}
	}
}

// TestNothingElseIsAllowed gives the holder what no director makes, or not this one.
func TestNothingElseIsAllowed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *wirepb.Token)
		text   string
	}{
		"nothing":                 {func(t *wirepb.Token) { proto.Reset(t) }, "0 bytes"},
		"a short secret":          {func(t *wirepb.Token) { t.Secret = t.Secret[:31] }, "31"},
		"no purpose":              {func(t *wirepb.Token) { t.Purpose = 0 }, "purpose 0"},
		"purpose from the future": {func(t *wirepb.Token) { t.Purpose = 3 }, "purpose 3"},
		"no director":             {func(t *wirepb.Token) { t.Director = "" }, "director"},
		"another director":        {func(t *wirepb.Token) { t.Director = "director-2" }, `"director-2"`},
		"for anybody":             {func(t *wirepb.Token) { t.Target = "" }, "target"},
		"for all sessions":        {func(t *wirepb.Token) { t.Session = 0 }, "session"},
		"leads nowhere":           {func(t *wirepb.Token) { t.FromEpoch = 4 }, "from epoch 4 to 4"},
		"leads back":              {func(t *wirepb.Token) { t.FromEpoch = 5 }, "from epoch 5 to 4"},
		"huge":                    {func(t *wirepb.Token) { t.ConnectionId = strings.Repeat("x", maxToken) }, "allowed are 2048"},
	} {
		play(t, func(s *scene) {
			bad := s.issue(claims)
			shown := bad.GetSecret()
			c.change(bad)
			err := s.grants.Allow(bad)
			if !errors.Is(err, &wire.Error{Code: wire.CodeProtocol}) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v", name, err)
			}
			checkSecrets(t, err.Error(), shown)
			s.refuses(shown, want, wire.CodeTokenUnknown)
			s.accepts(s.give(claims), want)
		})
	}
}

func TestTokenSaysWhatWasClaimed(t *testing.T) {
	play(t, func(s *scene) {
		issued := s.issue(claims)
		got := s.accepts(s.allow(s.grants, issued), want)
		meant := &wirepb.Token{
			Secret: issued.GetSecret(), Purpose: migration, Director: "director-1", Session: 7, ConnectionId: "c0ffee", StreamId: 3,
			Source: "worker-a", Target: "worker-b", FromEpoch: 3, ToEpoch: 4,
			ExpiresUnixMs: time.Now().Add(MaxTTL).UnixMilli(),
		}
		if !proto.Equal(got, meant) || len(got.GetSecret()) != SecretSize {
			t.Fatalf("got %v, want %v", got, meant)
		}
		s.accepts(s.give(claims), Want{Purpose: migration}) // the rest may be anything
	})
}

// TestNoBitMayChange flips each bit of a secret on its way.
func TestNoBitMayChange(t *testing.T) {
	play(t, func(s *scene) {
		good := s.give(claims)
		shown := append([]byte(nil), good...)
		for bit := range 8 * len(shown) {
			shown[bit/8] ^= 1 << (bit % 8)
			s.refuses(shown, Want{Purpose: migration}, wire.CodeTokenUnknown)
			shown[bit/8] ^= 1 << (bit % 8)
		}
		s.accepts(shown, want)
	})
}

func TestExpiry(t *testing.T) {
	play(t, func(s *scene) {
		first, second := s.give(claims), s.give(claims)
		time.Sleep(MaxTTL - time.Millisecond)
		s.accepts(first, want)
		time.Sleep(time.Millisecond)
		s.refuses(first, want, wire.CodeTokenExpired)
		s.refuses(second, want, wire.CodeTokenExpired)
		time.Sleep(skew - time.Millisecond)
		s.refuses(second, want, wire.CodeTokenExpired)
		time.Sleep(time.Second)
		s.refuses(second, want, wire.CodeTokenUnknown)
		s.accepts(s.give(claims), want)
		time.Sleep(MaxTTL + skew)
		s.refuses(nil, want, wire.CodeTokenMissing)
		s.refuses(second, want, wire.CodeTokenUnknown)
		if len(s.grants.grants)+len(s.grants.sessions) != 0 {
			t.Errorf("%d tokens and %d sessions are still known", len(s.grants.grants), len(s.grants.sessions))
		}
	})
	for ttl, lasts := range map[time.Duration]time.Duration{0: MaxTTL, time.Second: time.Second, time.Hour: MaxTTL} {
		play(t, func(s *scene) {
			s.issuer = NewIssuer(Config{Director: want.Director, TTL: ttl, Rate: 1})
			token := s.accepts(s.give(claims), want)
			if left := time.Until(time.UnixMilli(token.GetExpiresUnixMs())); left != lasts {
				t.Errorf("with a TTL of %s a token lasts %s", ttl, left)
			}
		})
	}
}

func TestUsedOnce(t *testing.T) {
	play(t, func(s *scene) {
		issued := s.issue(claims)
		good := s.allow(s.grants, issued)
		s.accepts(good, want)
		for range 29 { // for as long as it could count
			s.refuses(good, want, wire.CodeTokenReplayed)
			time.Sleep(time.Second)
			s.allow(s.grants, issued) // the director's word comes twice: it is used all the same
		}
		s.accepts(s.give(claims), want)
	})
}

// TestLinkEnds forgets what a director has allowed, and nothing of its next link, or of others.
func TestLinkEnds(t *testing.T) {
	play(t, func(s *scene) {
		old := s.give(claims)
		next := s.holder.Join(want.Director)
		fresh := s.allow(next, s.issue(claims))
		s.holder.Leave(s.grants)
		s.refuses(old, want, wire.CodeTokenUnknown)
		s.accepts(fresh, want)
		s.holder.Leave(next)
		s.refuses(fresh, want, wire.CodeTokenUnknown)
		if len(s.holder.tables) != 0 {
			t.Errorf("%d tables are left", len(s.holder.tables))
		}
	})
}

// TestUsedOnceAtOnce shows one token from many sides while everything else goes on.
func TestUsedOnceAtOnce(t *testing.T) {
	const rounds, shows = 20, 16
	s := newScene(t)
	var wg sync.WaitGroup
	for round := range uint64(rounds) {
		c, w := claims, want
		c.Session, w.Session = round+1, round+1
		token := s.issue(c)
		for range shows {
			wg.Go(func() {
				s.holder.Await(t.Context(), token.GetSecret())
				_, _ = s.holder.Show(token.GetSecret(), w)
			})
		}
		wg.Go(func() {
			_ = s.grants.Allow(token)
			s.grants.Revoke(1000+round, 1)
			s.holder.Leave(s.holder.Join("another"))
			s.holder.Counts()
		})
	}
	wg.Wait()
	if c := s.holder.Counts(); c.Accepted != rounds || c.Refused[wire.CodeTokenReplayed] != rounds*(shows-1) {
		t.Fatalf("%d tokens were accepted %d times; refused: %v", rounds, c.Accepted, c.Refused)
	}
}

// TestShownTooEarly shows a secret before the director's word of it arrives: it is waited for, but not for long.
func TestShownTooEarly(t *testing.T) {
	for after, takes := range map[time.Duration]time.Duration{
		0: 0, time.Second: time.Second, awaitTimeout - 1: awaitTimeout - 1, awaitTimeout + time.Second: awaitTimeout,
	} {
		play(t, func(s *scene) {
			token, start := s.issue(claims), time.Now()
			time.AfterFunc(after, func() { _ = s.grants.Allow(token) })
			time.AfterFunc(after/2, func() { _ = s.grants.Allow(s.issue(claims)) }) // another one is of no use
			synctest.Wait()
			s.holder.Await(s.Context(), token.GetSecret())
			if took := time.Since(start); took != takes {
				t.Errorf("comes after %v: waited for %v", after, took)
			}
			if after > awaitTimeout {
				s.refuses(token.GetSecret(), want, wire.CodeTokenUnknown)
			} else {
				s.accepts(token.GetSecret(), want)
			}
			time.Sleep(time.Minute)
		})
	}
	play(t, func(s *scene) { // and not at all where that is of no use
		start := time.Now()
		gone, cancel := context.WithCancel(s.Context())
		cancel()
		s.holder.Await(gone, s.issue(claims).GetSecret())
		s.holder.Await(s.Context(), nil)
		s.holder.Await(s.Context(), []byte("short"))
		used := s.give(claims)
		s.accepts(used, want)
		s.holder.Await(s.Context(), used)
		if took := time.Since(start); took != 0 {
			t.Errorf("waited for %v", took)
		}
	})
}

func TestOlderEpoch(t *testing.T) {
	later, loose := claims, Want{Purpose: migration}
	later.FromEpoch, later.ToEpoch = 4, 5
	play(t, func(s *scene) {
		old, twin, other := s.give(claims), s.give(later), later
		other.Session = 8
		s.accepts(s.give(other), loose)
		s.accepts(s.give(later), loose)
		if text := s.refuses(old, loose, wire.CodeTokenEpoch); !strings.Contains(text, "to epoch 4, the session is in 5") {
			t.Error(text)
		}
		s.accepts(twin, loose) // the same epoch is not older
		third := claims        // nor is it for something else
		third.Purpose = transfer
		s.accepts(s.give(third), Want{Purpose: transfer})
		short := s.issue(later)
		short.ExpiresUnixMs = time.Now().Add(time.Second).UnixMilli()
		s.accepts(s.allow(s.grants, short), loose)
		time.Sleep(MaxTTL - time.Second) // that one is forgotten, but not the epoch
		s.refuses(old, loose, wire.CodeTokenEpoch)
	})
}

func TestRevoked(t *testing.T) {
	later, other := claims, claims
	later.FromEpoch, later.ToEpoch = 4, 5
	other.Session = 8
	play(t, func(s *scene) {
		good, loose := s.give(claims), Want{Purpose: migration}
		second := s.holder.Join("director-2")
		second.Revoke(7, 9) // numbers its sessions by itself
		s.grants.Revoke(7, 4)
		s.grants.Revoke(7, 2) // takes nothing back
		s.refuses(good, want, wire.CodeTokenRevoked)
		s.refuses(s.give(claims), want, wire.CodeTokenRevoked) // given afterwards
		s.accepts(s.give(other), loose)
		fresh := s.give(later)
		s.accepts(fresh, loose)
		s.grants.Revoke(7, 5)
		s.refuses(fresh, loose, wire.CodeTokenRevoked)
		time.Sleep(MaxTTL - time.Second) // remembered for as long as they could count
		s.refuses(fresh, loose, wire.CodeTokenRevoked)
		time.Sleep(revokedFor)
		s.accepts(s.give(other), loose)
		if n := len(s.grants.sessions); n != 1 {
			t.Fatalf("%d sessions are still remembered", n)
		}
	})
}

// TestDirectorsDoNotDisturbEachOther has a second director that has stolen a token, and says it is its own, or another.
func TestDirectorsDoNotDisturbEachOther(t *testing.T) {
	for name, change := range map[string]func(stolen *wirepb.Token){
		"in the first one's name": func(*wirepb.Token) {},
		"for itself":              func(t *wirepb.Token) { t.Director = "director-2" },
		"for something else":      func(t *wirepb.Token) { t.Director, t.Target, t.ToEpoch = "director-2", "worker-c", 9 },
		"that has expired":        func(t *wirepb.Token) { t.Director, t.ExpiresUnixMs = "director-2", 1 },
	} {
		for _, early := range []bool{true, false} {
			play(t, func(s *scene) {
				token := s.issue(claims)
				stolen := proto.CloneOf(token)
				change(stolen)
				if early {
					thief := s.holder.Join("director-2")
					s.holder.tables[0], s.holder.tables[1] = thief, s.grants
					_ = thief.Allow(stolen)
					thief.Revoke(7, 9)
				}
				s.allow(s.grants, token)
				if !early {
					thief := s.holder.Join("director-2")
					_ = thief.Allow(stolen)
					thief.Revoke(7, 9)
				}
				if got := s.accepts(token.GetSecret(), want); got != token {
					t.Errorf("%s: got %v", name, got)
				}
				_, err := s.holder.Show(token.GetSecret(), want)
				if again := new(wire.Error); !errors.As(err, &again) {
					t.Errorf("%s: it is good a second time", name)
				}
			})
		}
	}
}

// TestClockSetBack lets a used token come back to life: it is still remembered.
func TestClockSetBack(t *testing.T) {
	play(t, func(s *scene) {
		secret := s.give(claims)
		s.accepts(secret, want)
		time.Sleep(MaxTTL + 2*time.Second)
		s.accepts(s.give(claims), want) // a time to forget
		_, refusal := s.holder.show(secret, want, time.Now().Add(-3*time.Second))
		if refusal == nil || refusal.Code != wire.CodeTokenReplayed {
			t.Fatalf("got %v", refusal)
		}
	})
}

// TestTableIsBounded fills what a table may know. Full, it takes no more, and says so of what it may have been given.
func TestTableIsBounded(t *testing.T) {
	const limit = 8
	play(t, func(s *scene) {
		s.grants.limit = limit
		other := s.holder.Join("director-2")
		var secrets [][]byte
		for i := range uint64(limit + 2) {
			c := claims
			c.Session += i
			secrets = append(secrets, s.give(c))
		}
		loose := Want{Purpose: migration}
		for _, secret := range secrets[:limit] {
			s.accepts(secret, loose)
		}
		s.refuses(secrets[limit], loose, wire.CodeTokenRate)
		s.refuses(secrets[0], loose, wire.CodeTokenReplayed)
		theirs := s.issue(claims)
		theirs.Director = "director-2"
		s.accepts(s.allow(other, theirs), loose) // another director's table has room
		time.Sleep(MaxTTL + skew)
		s.refuses(secrets[limit], loose, wire.CodeTokenUnknown)
		s.accepts(s.give(claims), loose)
		if len(s.grants.grants) != 1 || len(s.grants.sessions) != 1 {
			t.Fatalf("%d tokens and %d sessions are remembered", len(s.grants.grants), len(s.grants.sessions))
		}
	})
}

func TestRevocationsAreBounded(t *testing.T) {
	const limit = 8
	play(t, func(s *scene) {
		s.grants.limit = limit
		for session := range uint64(limit) {
			s.grants.Revoke(100+session, 4)
		}
		s.refuses(s.give(claims), want, wire.CodeTokenRate) // to be used it would need a place
		s.grants.Revoke(100, 5)                             // has its place
		time.Sleep(revokedFor - 1)
		s.refuses(s.give(claims), want, wire.CodeTokenRate)
		s.grants.limit++
		s.accepts(s.give(claims), want)
		s.grants.Revoke(8, 4) // has none
		s.refuses(s.give(claims), want, wire.CodeTokenRate)
		if len(s.grants.sessions) != limit+1 {
			t.Fatalf("%d sessions are remembered", len(s.grants.sessions))
		}
		time.Sleep(revokedFor)
		s.accepts(s.give(claims), want)
	})
}
