package keys_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/shared/wire"
)

// entry is a file with one key, which is called as its name.
func entry(name string, fields ...string) string {
	return fmt.Sprintf("keys:\n- name: %s\n  sha256: %s\n  %s\n", name, hashOf(name), strings.Join(fields, "\n  "))
}

func authenticated(t *testing.T, k *keys.Keys, token string) *keys.Key {
	t.Helper()
	key, ok := k.Authenticate(token)
	require.True(t, ok)
	return key
}

func admitted(t *testing.T, key *keys.Key) *keys.Grant {
	t.Helper()
	grant, err := key.Admit()
	require.NoError(t, err)
	return grant
}

// refused returns after how long a key says that there is room.
func refused(t *testing.T, key *keys.Key, words string) time.Duration {
	t.Helper()
	_, err := key.Admit()
	var refusal *keys.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, wire.CodeLimit, wire.AsError(err, wire.CodeInternal).Code)
	require.ErrorContains(t, err, words)
	return refusal.After
}

// took returns what reads as so many tokens.
func took(prompt, completion uint64) func() (uint64, uint64) {
	return func() (uint64, uint64) { return prompt, completion }
}

// TestRequestsPerMinute: as many at once as a minute allows, then as they come back, exactly when it was said.
func TestRequestsPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _, _ := file(t, entry("a", "requests_per_minute: 3"))
		key := authenticated(t, k, "a")
		for left := 2; left >= 0; left-- {
			admitted(t, key).Close()
			require.Equal(t, []keys.Limit{{Of: "requests", Most: 3, Left: left, Reset: time.Duration(3-left) * 20 * time.Second}}, key.Limits())
		}
		words := "limit_exceeded: the key a may have 3 requests a minute (requests_per_minute), and has used that up; try again in 20s"
		require.Equal(t, 20*time.Second, refused(t, key, words))
		time.Sleep(13 * time.Second)
		require.Equal(t, 7*time.Second, refused(t, key, "try again in 7s")) // to be refused costs nothing
		time.Sleep(7 * time.Second)
		admitted(t, key).Close()
		require.Equal(t, 20*time.Second, refused(t, key, ""))
		time.Sleep(time.Hour)
		require.Equal(t, []keys.Limit{{Of: "requests", Most: 3, Left: 3}}, key.Limits())
		require.Equal(t, []keys.Usage{{Name: "a", Requests: 4}}, k.Usage())
	})
}

// TestWhenItWasSaidThereIsRoom: for limits that divide no minute evenly too.
func TestWhenItWasSaidThereIsRoom(t *testing.T) {
	for _, perMinute := range []int{1, 7, 59, 61, 997, 100_003} {
		synctest.Test(t, func(t *testing.T) {
			k, _, _ := file(t, entry("a", fmt.Sprint("requests_per_minute: ", perMinute)))
			key := authenticated(t, k, "a")
			for range perMinute {
				admitted(t, key).Close()
			}
			for range 20 {
				after := refused(t, key, "")
				require.Positive(t, after)
				time.Sleep(after)
				admitted(t, key).Close()
				for { // a millisecond may bring more than one
					grant, err := key.Admit()
					if err != nil {
						break
					}
					grant.Close()
				}
			}
		})
	}
}

// TestTokensPerMinute: whoever has any left may begin; what was more than that has to come back before the next request. What
// runs counts as far as it has got.
func TestTokensPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _, _ := file(t, entry("a", "tokens_per_minute: 60"))
		key := authenticated(t, k, "a")
		grant := admitted(t, key)
		var completion uint64
		grant.Meter(func() (uint64, uint64) { return 10, completion })
		time.Sleep(time.Second)
		completion = 30
		require.Equal(t, []keys.Limit{{Of: "tokens", Most: 60, Left: 20, Reset: 40 * time.Second}}, key.Limits())
		completion = 170
		time.Sleep(10 * time.Second)
		require.Equal(t, 111*time.Second, refused(t, key, "the key a may have 60 tokens a minute (tokens_per_minute)")) // 30 - 140 = -110
		require.Equal(t, []keys.Limit{{Of: "tokens", Most: 60, Left: 0, Reset: 170 * time.Second}}, key.Limits())
		grant.Close()
		require.Equal(t, 111*time.Second, refused(t, key, ""), "what was charged is not charged again")
		time.Sleep(111 * time.Second)
		admitted(t, key).Close()
		require.Equal(t, []keys.Usage{{Name: "a", Requests: 2, PromptTokens: 10, CompletionTokens: 170}}, k.Usage())
	})
}

func TestStreamsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _, _ := file(t, entry("a", "max_streams: 2", "requests_per_minute: 3"))
		key := authenticated(t, k, "a")
		first := admitted(t, key)
		second := admitted(t, authenticated(t, k, "a"))
		require.Equal(t, time.Second, refused(t, key, "the key a may have 2 streams at once (max_streams)"))
		second.Close()
		second.Close() // again does nothing
		third := admitted(t, key)
		refused(t, key, "max_streams")
		third.Close()
		first.Close()
		refused(t, key, "requests_per_minute") // those that were refused did not count
	})
}

// TestUsageIsCountedOnce: however often, and by whom, it is looked at.
func TestUsageIsCountedOnce(t *testing.T) {
	k, _, _ := file(t, entry("a", "tokens_per_minute: 1000000"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			key, _ := k.Authenticate("a")
			for range 100 {
				grant, err := key.Admit()
				if err != nil {
					t.Error(err)
					return
				}
				grant.Meter(took(3, 5))
				k.Usage()
				key.Limits()
				grant.Meter(took(3, 4)) // who counts otherwise at the end gets nothing back
				grant.Close()
			}
		})
	}
	all.Wait()
	require.Equal(t, uint64(800), k.Usage()[0].Requests)
	require.Equal(t, uint64(2400), k.Usage()[0].PromptTokens)
	require.GreaterOrEqual(t, k.Usage()[0].CompletionTokens, uint64(3200))
	require.LessOrEqual(t, k.Usage()[0].CompletionTokens, uint64(4000))
}

func TestModel(t *testing.T) {
	k, _, _ := file(t, entry("a", "models: [small, gone, nickname]"))
	key := authenticated(t, k, "a")
	find := func(name string) (string, error) {
		switch name {
		case "":
			return "large", nil
		case "small", "large":
			return name, nil
		}
		return "", wire.Errorf(wire.CodeModel, "there are small, large")
	}
	for _, c := range []struct {
		key             *keys.Key
		name, want, own string
		code            wire.Code
	}{
		{key, "small", "small", "", ""},
		{key, "tiny", "small", "small", ""},
		{key, "nickname", "large", "large", ""}, // whatever that stands for
		{key, "tiny", `no worker has the model "tiny" at present`, "gone", wire.CodeModel},
		{key, "big", `the key a may not use the model "big"`, "large", wire.CodeForbidden},
		{key, "large", "the key a may not use the model \"large\"; it may use small, gone, nickname", "", wire.CodeForbidden},
		{key, "", "the key a may not use the model that is meant where none is named; it may use small, gone, nickname", "", wire.CodeForbidden},
		{key, "unheard-of", "may not use the model", "", wire.CodeForbidden},
		{key, "gone", `no worker has the model "gone" at present`, "", wire.CodeModel}, // and no word of large
		{nil, "", "large", "", ""},
		{nil, "gone", "there are small, large", "", wire.CodeModel},
	} {
		got, err := c.key.Model(c.name, cmp.Or(c.own, c.name), find)
		if c.code == "" {
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			continue
		}
		require.ErrorIs(t, err, &wire.Error{Code: c.code}, c.name)
		require.ErrorContains(t, err, c.want)
	}
}

// watched is file, in a bubble, with somebody who looks at it.
func watched(t *testing.T, content string, play func(k *keys.Keys, change func(content string), logged func() string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k, f, path, logs := opened(t, content)
		logs.TakeAll()
		ctx, stop := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { f.Watch(ctx) })
		defer watching.Wait()
		defer stop()
		play(k, func(content string) {
			if content == "" {
				require.NoError(t, os.Remove(path))
			} else {
				write(t, path, content)
			}
			time.Sleep(1001 * time.Millisecond)
			synctest.Wait()
		}, func() (all string) {
			for _, entry := range logs.TakeAll() {
				all += entry.Level.String() + ": " + entry.Message + fmt.Sprint(entry.ContextMap()) + "\n"
			}
			return all
		})
	})
}

// TestAFileThatChanges: who is new may come, who is taken out is out, also with a key that was shown before; and what was used
// stays used.
func TestAFileThatChanges(t *testing.T) {
	watched(t, entry("a", "requests_per_minute: 2"), func(k *keys.Keys, change func(string), logged func() string) {
		a := authenticated(t, k, "a")
		admitted(t, a).Close()
		change(entry("b"))
		require.Contains(t, logged(), "info: keys were read")
		_, ok := k.Authenticate("a")
		require.False(t, ok)
		_, err := a.Admit()
		require.ErrorIs(t, err, &wire.Error{Code: wire.CodeUnauthorized})
		require.ErrorContains(t, err, "the key a is not good any more")
		admitted(t, authenticated(t, k, "b")).Close()
		require.Equal(t, []keys.Usage{{Name: "a", Requests: 1}, {Name: "b", Requests: 1}}, k.Usage())

		change(entry("a", "requests_per_minute: 2"))
		admitted(t, a).Close()
		refused(t, a, "requests_per_minute")
		change(entry("a", "requests_per_minute: 6000", "models: [m]", "priority: 3"))
		require.Less(t, refused(t, a, "requests_per_minute"), 10*time.Millisecond) // what was used stays used, and comes back faster
		time.Sleep(time.Second)
		admitted(t, a).Close()
		require.False(t, a.MayUse("n", "n"))
		require.Equal(t, uint32(3), a.Priority(0))
		change(entry("a"))
		require.Empty(t, a.Limits())
		require.True(t, a.MayUse("n", "n"))
	})
}

// TestAKeyIsReplaced: for a while both are good, for the same user; then the old one is out, whoever showed it before.
func TestAKeyIsReplaced(t *testing.T) {
	both := "keys: [{name: a, sha256: [%s, %s], max_streams: 1}]"
	watched(t, entry("a", "max_streams: 1"), func(k *keys.Keys, change func(string), _ func() string) {
		old := authenticated(t, k, "a")
		change(fmt.Sprintf(both, hashOf("a"), hashOf("next")))
		next := authenticated(t, k, "next")
		require.Equal(t, "a", next.Name())
		grant := admitted(t, old)
		refused(t, next, "max_streams")
		grant.Close()
		change(fmt.Sprintf(both, hashOf("other"), hashOf("next")))
		_, err := old.Admit()
		require.ErrorIs(t, err, &wire.Error{Code: wire.CodeUnauthorized})
		admitted(t, next).Close()
	})
}

// TestAFileThatBecomesBad changes nothing, and is told once.
func TestAFileThatBecomesBad(t *testing.T) {
	watched(t, entry("a"), func(k *keys.Keys, change func(string), logged func() string) {
		for content, words := range map[string]string{
			"keys: [": "keys.yaml:1: did not find", entry("b", "rpm: 3"): `keys.yaml:4: there is no field \"rpm\"`, "\n": "the file is empty", "": "no such file",
		} {
			change(content)
			time.Sleep(time.Minute)
			synctest.Wait()
			admitted(t, authenticated(t, k, "a")).Close()
			_, ok := k.Authenticate("b")
			require.False(t, ok)
			said := logged()
			require.Equal(t, 1, strings.Count(said, "\n"), said)
			require.Contains(t, said, "warn: the file of keys cannot be used, those that were read before stay")
			require.Contains(t, strings.ReplaceAll(said, `"`, `\"`), words)
		}
		change("keys: []")
		require.Contains(t, logged(), "info: keys were read")
		_, ok := k.Authenticate("a")
		require.False(t, ok)
	})
}

// TestNothingIsShownOfAKey: neither it nor its hash is in a log, an error or what fmt prints.
func TestNothingIsShownOfAKey(t *testing.T) {
	k, _, logs := file(t, entry("a", "max_streams: 1"))
	key := authenticated(t, k, "a")
	admitted(t, key)
	_, err := key.Admit()
	said := fmt.Sprintf("%v %+v %s %v", key, key, key, err)
	for _, entry := range logs.All() {
		said += entry.Message + fmt.Sprint(entry.ContextMap())
	}
	require.NotContains(t, said, hashOf("a")[:8])
	require.True(t, errors.As(err, new(*keys.Refusal)))
	zap.NewNop().Info("", zap.Stringer("key", key))
}
