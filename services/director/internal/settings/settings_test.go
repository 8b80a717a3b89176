package settings_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/shared/config"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// file writes a file, and returns the variables of a director that reads it.
func file(t *testing.T, content string) config.Director {
	t.Helper()
	cfg := config.DefaultDirector()
	cfg.ConfigFile = filepath.Join(t.TempDir(), "director.yaml")
	write(t, cfg.ConfigFile, content)
	return cfg
}

// key is an entry of keys; the key of a name is the name.
func key(name string) string {
	return fmt.Sprintf("{name: %s, sha256: %x}", name, sha256.Sum256([]byte(name)))
}

const models = `
models:
  org/model-8b:
    aliases: [gpt-4o, gpt-4o-mini]
    continuity: text
    max_tokens: 4096
  plain: {max_tokens: 200000, aliases: p}
  any: {continuity: none}
`

func TestWhatAFileSays(t *testing.T) {
	const limits = `
limits:
  max_connections: 1
  max_sessions: 2
  max_prompt_bytes: 3
  max_body_bytes: 4
  max_tokens: 100000
  max_session_bytes: 6
  max_swaps_per_minute: 7
  max_worker_deaths: 8
`
	cfg := file(t, models+limits+"keys: ["+key("a")+"]\n")
	cfg.MaxTokens = 50
	s, err := settings.Read(cfg, zap.NewNop(), nil)
	require.NoError(t, err)
	now := s.Now()
	for name, own := range map[string]string{
		"gpt-4o": "org/model-8b", "gpt-4o-mini": "org/model-8b", "org/model-8b": "org/model-8b", "p": "plain", "unheard-of": "unheard-of", "": "",
	} {
		require.Equal(t, own, now.Own(name), name)
	}
	require.Equal(t, []string{"gpt-4o", "gpt-4o-mini"}, now.Aliases("org/model-8b"))
	require.Empty(t, now.Aliases("any"))
	require.Equal(t, []uint32{1, 2, 0, 2}, []uint32{
		now.Continuity("org/model-8b", 2), now.Continuity("plain", 2), now.Continuity("any", 2), now.Continuity("unheard-of", 2),
	})
	require.Equal(t, []int{4096, 100000, 100000}, []int{now.MaxTokens("org/model-8b"), now.MaxTokens("plain"), now.MaxTokens("any")})
	d := now.Director
	require.Equal(t, []int{1, 2, 3, 4, 100000, 6, 7, 8}, []int{
		d.MaxConnections, d.MaxSessions, d.MaxPromptBytes, d.MaxBodyBytes, d.MaxTokens, d.MaxSessionBytes, d.MaxSwapsPerMinute, d.MaxWorkerDeaths,
	})
	require.Equal(t, cfg.WorkerWait, d.WorkerWait)
	_, ok := s.Keys().Authenticate("a")
	require.True(t, ok)
	require.Equal(t, cfg.ConfigFile, s.Status().Path)
	require.Empty(t, s.Status().Error)
}

// TestDefaultModel: it may go by another name.
func TestDefaultModel(t *testing.T) {
	for name, want := range map[string]string{"": "", "gpt-4o": "org/model-8b", "plain": "", "unheard-of": ""} { // what is left empty is the fleet's affair
		cfg := file(t, models)
		cfg.DefaultModel = name
		s, err := settings.Read(cfg, zap.NewNop(), nil)
		require.NoError(t, err)
		require.Equal(t, want, s.Now().Own(""), name)
		require.Equal(t, "other", s.Now().Own("other"))
	}
}

func TestWithoutAFile(t *testing.T) {
	cfg := config.DefaultDirector()
	s, err := settings.Read(cfg, zap.NewNop(), nil)
	require.NoError(t, err)
	require.Nil(t, s.Keys())
	require.Nil(t, s.Status())
	require.Equal(t, "gpt-4o", s.Now().Own("gpt-4o"))
	require.Equal(t, cfg.MaxTokens, s.Now().MaxTokens("m"))
	require.Equal(t, cfg, s.Now().Director)
}

// TestWhatIsWrongWithAFile has what an operator may get wrong, with all that he is told.
func TestWhatIsWrongWithAFile(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"empty":           {"", `director.yaml: the file is empty; give keys, models or limits`},
		"no yaml":         {"models: {\n", `director.yaml:1: did not find expected node content`},
		"two documents":   {"{}\n---\n{}\n", `director.yaml: more than one document; give one`},
		"a list":          {"- models\n", `director.yaml:1: want fields: keys, limits, models`},
		"section":         {"model: {}\n", `director.yaml:1: there is no field "model"; did you mean models? there are keys, limits, models`},
		"another section": {"workers: {}\n", `director.yaml:1: there is no field "workers"; there are keys, limits, models`},
		"section twice":   {"limits: {}\nlimits: {}\n", `director.yaml:2: limits for the second time`},
		"keys":            {"keys:\n- {name: a}\n", `director.yaml:2: sha256 is missing; give 64 hexadecimal digits, as printf %s "$KEY" | sha256sum makes them`},
		"models":          {"models: [m]\n", `director.yaml:1: models: want names, with fields for each`},
		"no name":         {"models:\n  \"\": {}\n", `director.yaml:2: models: "" is no name of a model; give 1 to 256 bytes without control characters`},
		"model":           {"models:\n  m: text\n", `director.yaml:2: want fields: aliases, continuity, max_tokens`},
		"model twice":     {"models:\n  m: {}\n  m: {}\n", `director.yaml:3: m for the second time`},
		"field":           {"models:\n  m:\n    alias: x\n", `director.yaml:3: there is no field "alias"; did you mean aliases? there are aliases, continuity, max_tokens`},
		"strange field":   {"models:\n  m:\n    temperature: 1\n", `director.yaml:3: there is no field "temperature"; there are aliases, continuity, max_tokens`},
		"continuity":      {"models:\n  m:\n    continuity: verify\n", `director.yaml:3: continuity is "verify"; did you mean verified? give none, text, verified or exact`},
		"any":             {"models:\n  m:\n    continuity: [text]\n", `director.yaml:3: continuity is "a list"; give none, text, verified or exact`},
		"no number":       {"models:\n  m:\n    max_tokens: many\n", `director.yaml:3: max_tokens is "many"; give a number from 1 to 2147483647, or leave the field out for none`},
		"zero":            {"models:\n  m:\n    max_tokens: 0\n", `director.yaml:3: max_tokens is "0"; give a number from 1 to 2147483647, or leave the field out for none`},
		"aliases":         {"models:\n  m:\n    aliases: {}\n", `director.yaml:3: aliases: want one or more; leave the field out if none is meant`},
		"alias":           {"models:\n  m:\n    aliases: [\"\"]\n", `director.yaml:3: aliases: "" is no name of a model; give 1 to 256 bytes without control characters`},
		"alias twice":     {"models:\n  m:\n    aliases: [x, y, x]\n", `director.yaml:3: aliases: "x" for the second time`},
		"own name":        {"models:\n  m:\n    aliases: m\n", `director.yaml:3: aliases: "m" is the name of a model itself, in line 2; give m another alias`},
		"name of another": {"models:\n  m:\n    aliases: n\n  n: {}\n", `director.yaml:3: aliases: "n" is the name of a model itself, in line 4; give m another alias`},
		"of two":          {"models:\n  m:\n    aliases: x\n  n:\n    aliases: [y, x]\n", `director.yaml:5: aliases: "x" is one of m too, in line 2; give it to one of the two`},
		"limits":          {"limits: 3\n", `director.yaml:1: want fields: max_body_bytes, max_connections, max_prompt_bytes, max_session_bytes, max_sessions, max_swaps_per_minute, max_tokens, max_worker_deaths`},
		"limit":           {"limits:\n  max_token: 3\n", `director.yaml:2: there is no field "max_token"; did you mean max_tokens? there are max_body_bytes,`},
		"a variable":      {"limits:\n  max_streams: 3\n", `director.yaml:2: max_streams cannot change while the director runs; set CONNECTION_SWAP_DIRECTOR_MAX_STREAMS and restart`},
		"a time":          {"limits:\n  worker_wait: 3s\n", `director.yaml:2: worker_wait cannot change while the director runs; set CONNECTION_SWAP_DIRECTOR_WORKER_WAIT and restart`},
		"no limit":        {"limits:\n  max_tokens:\n", `director.yaml:2: max_tokens is ""; give a whole number such as 100000`},
		"a fraction":      {"limits:\n  max_tokens: 1.5\n", `director.yaml:2: max_tokens is "1.5"; give a whole number such as 100000`},
		"too low":         {"limits:\n  max_tokens: 0\n", `director.yaml:2: max_tokens is 0: too low; give at least 1`},
		"too high":        {"limits:\n  max_sessions: 3000000000\n", `director.yaml:2: max_sessions is 3000000000: too high; give at most 2147483647`},
		"out of range":    {"limits:\n  max_prompt_bytes: -1\n", `director.yaml:2: max_prompt_bytes is -1: out of range; give a number from 1 to`},
		"all at once":     {"models:\n  m: {continuity: x}\nlimits:\n  max_tokens: x\n", `director.yaml:4: max_tokens is "x"; give a whole number such as 100000`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := file(t, c.content)
			_, err := settings.Read(cfg, zap.NewNop(), nil)
			require.Error(t, err)
			said := strings.ReplaceAll(err.Error(), filepath.Dir(cfg.ConfigFile)+"/", "")
			switch {
			case name == "all at once":
				require.Equal(t, `director.yaml:2: continuity is "x"; give none, text, verified or exact; `+c.want, said)
			case strings.HasSuffix(c.want, ",") || strings.HasSuffix(c.want, "to"):
				require.True(t, strings.HasPrefix(said, c.want), said)
			default:
				require.Equal(t, c.want, said)
			}
		})
	}
	_, err := settings.Read(config.Director{ConfigFile: filepath.Join(t.TempDir(), "x")}, zap.NewNop(), nil)
	require.ErrorContains(t, err, "no such file")
}

// TestKeysInBothFiles: it would not be clear whose count.
func TestKeysInBothFiles(t *testing.T) {
	cfg := file(t, "limits: {max_tokens: 3}\nkeys: []\n")
	cfg.KeysFile = "keys.yaml"
	_, err := settings.Read(cfg, zap.NewNop(), nil)
	require.EqualError(t, err, cfg.ConfigFile+":2: keys are in CONNECTION_SWAP_DIRECTOR_KEYS_FILE (keys.yaml) too; give them in one of the two files")
}

func TestTooMany(t *testing.T) {
	var content strings.Builder
	content.WriteString("models:\n")
	for i := range 1001 {
		fmt.Fprintf(&content, "  m%d: {}\n", i)
	}
	_, err := settings.Read(file(t, content.String()), zap.NewNop(), nil)
	require.ErrorContains(t, err, "director.yaml:2: models: 1001 of them, at most 1000 are allowed")
	_, err = settings.Read(file(t, "models:\n  m:\n    aliases: ["+strings.Repeat("a,", 101)+"]\n"), zap.NewNop(), nil)
	require.ErrorContains(t, err, "director.yaml:3: aliases: 101 of them, at most 100 are allowed")
}

// watched is a file that somebody looks at, in a bubble.
type watched struct {
	*testing.T
	*settings.Settings
	cfg     config.Director
	logs    *observer.ObservedLogs
	applied atomic.Pointer[config.Director]
	told    []error // of changes
}

// watch has a file looked at, and plays what happens to it.
func watch(t *testing.T, content string, play func(w *watched)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		w := &watched{T: t, cfg: file(t, content), logs: logs}
		var err error
		w.Settings, err = settings.Read(w.cfg, zap.New(core), func(err error) { w.told = append(w.told, err) })
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { w.Watch(ctx, func(cfg config.Director) { w.applied.Store(&cfg) }) })
		defer watching.Wait()
		defer stop()
		play(w)
	})
}

// change writes the file, and returns once it was looked at several times.
func (w *watched) change(content string) {
	w.Helper()
	write(w.T, w.cfg.ConfigFile, content)
	time.Sleep(3001 * time.Millisecond)
	synctest.Wait()
}

// TestReload: all of a file counts once it has changed; whoever has a snapshot keeps what it says.
func TestReload(t *testing.T) {
	watch(t, models+"keys: ["+key("a")+"]\n", func(w *watched) {
		before, loaded := w.Now(), w.Status().Loaded
		require.Nil(t, w.applied.Load())
		w.change("models: {other: {aliases: gpt-4o, max_tokens: 9}}\nlimits: {max_swaps_per_minute: 3, max_tokens: 70}\nkeys: [" + key("b") + "]\n")
		require.Equal(t, "other", w.Now().Own("gpt-4o"))
		require.Equal(t, 9, w.Now().MaxTokens("other"))
		require.Equal(t, 3, w.applied.Load().MaxSwapsPerMinute)
		_, a := w.Keys().Authenticate("a")
		_, b := w.Keys().Authenticate("b")
		require.Equal(t, []bool{false, true}, []bool{a, b})
		require.Greater(t, w.Status().Loaded, loaded)
		require.Equal(t, []error{nil}, w.told)

		require.Equal(t, "org/model-8b", before.Own("gpt-4o"))
		require.Equal(t, w.cfg.MaxTokens, before.Director.MaxTokens)

		w.change("keys: []\n") // a limit that is gone is the variable's again
		require.Equal(t, w.cfg.MaxSwapsPerMinute, w.applied.Load().MaxSwapsPerMinute)
		require.Equal(t, w.cfg.MaxTokens, w.Now().Director.MaxTokens)
	})
}

// TestNothingHalfApplied: where one part is wrong, no other one counts; it is told once, and shown for as long as it is so.
func TestNothingHalfApplied(t *testing.T) {
	watch(t, models+"keys: ["+key("a")+"]\n", func(w *watched) {
		loaded := w.Status().Loaded
		good := "models: {other: {aliases: gpt-4o}}\nlimits: {max_tokens: 5}\nkeys: [" + key("b") + "]\n"
		for _, wrong := range []string{
			strings.Replace(good, "aliases", "alias", 1), strings.Replace(good, "5", "0", 1), strings.Replace(good, "sha256", "sha", 1), good + "more: 1\n", "{",
			"models: {other: {}}\n", // keys left out would let everybody in
		} {
			w.told = nil
			w.change(wrong)
			require.Equal(t, "org/model-8b", w.Now().Own("gpt-4o"))
			require.Equal(t, w.cfg.MaxTokens, w.Now().Director.MaxTokens)
			require.Nil(t, w.applied.Load())
			_, a := w.Keys().Authenticate("a")
			_, b := w.Keys().Authenticate("b")
			require.Equal(t, []bool{true, false}, []bool{a, b})
			status := w.Status()
			require.Equal(t, loaded, status.Loaded)
			require.Contains(t, status.Error, w.cfg.ConfigFile+":")
			said := w.logs.TakeAll()
			require.Len(t, said, 1)
			require.Equal(t, "the configuration file cannot be used, what was read before stays", said[0].Message)
			require.Equal(t, status.Error, said[0].ContextMap()["error"])
			require.Len(t, w.told, 1)
			require.EqualError(t, w.told[0], status.Error)
		}
		require.Contains(t, w.Status().Error, "director.yaml:1: keys is missing, and the director has begun with it; give keys: [] for nobody")

		require.NoError(t, os.Remove(w.cfg.ConfigFile))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Contains(t, w.Status().Error, "no such file")
		w.change("models: {other: {}}\n") // what was wrong before is so again
		require.Contains(t, w.Status().Error, "keys is missing")
		w.change(good)
		require.Empty(t, w.Status().Error)
		require.Equal(t, "other", w.Now().Own("gpt-4o"))
	})
}

// TestKeysNeedARestart where there were none: connections that stand have shown none.
func TestKeysNeedARestart(t *testing.T) {
	watch(t, models, func(w *watched) {
		require.Nil(t, w.Keys())
		w.change("keys: []\n")
		require.Nil(t, w.Keys())
		require.Contains(t, w.Status().Error, "director.yaml:1: keys are new, and the director has begun without; restart it so that everybody has to show one")
		require.Equal(t, "org/model-8b", w.Now().Own("gpt-4o"))
	})
}

// TestReloadUnderUse: each snapshot is of one file, however fast they follow each other.
func TestReloadUnderUse(t *testing.T) {
	said := func(n int) string {
		return fmt.Sprintf("models: {m%d: {aliases: x, max_tokens: %d}}\nlimits: {max_prompt_bytes: %d}\n", n, n, n)
	}
	watch(t, said(1), func(w *watched) {
		var using sync.WaitGroup
		var over atomic.Bool
		for range 4 {
			using.Go(func() {
				for !over.Load() {
					now := w.Now()
					n := now.Director.MaxPromptBytes
					if now.Own("x") != fmt.Sprint("m", n) || now.MaxTokens(now.Own("x")) != n {
						t.Errorf("%d, %s, %d", n, now.Own("x"), now.MaxTokens(now.Own("x")))
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		for n := 2; n < 10; n++ {
			w.change(said(n))
		}
		over.Store(true)
		using.Wait()
		require.Equal(t, "m9", w.Now().Own("x"))
	})
}

// TestExampleOfTheDocs: it can be used as it is.
func TestExampleOfTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../../../docs/OPERATIONS.md")
	require.NoError(t, err)
	_, example, found := strings.Cut(string(docs), "```yaml\n# director.yaml\n")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "```")
	s, err := settings.Read(file(t, example), zap.NewNop(), nil)
	require.NoError(t, err)
	require.NotNil(t, s.Keys())
	require.NotEqual(t, s.Now().Own("gpt-4o"), "gpt-4o")
}

func FuzzFile(f *testing.F) {
	f.Add(models)
	f.Add("keys: [" + key("a") + "]\nlimits: {max_tokens: 1}\n")
	f.Add("models: &a {m: *a}")
	f.Add("models: {m: &b {aliases: [&c x, *c]}, n: *b}")
	f.Fuzz(func(t *testing.T, content string) {
		s, err := settings.Read(file(t, content), zap.NewNop(), nil)
		if err == nil {
			require.Positive(t, s.Now().MaxTokens("m"))
			require.Equal(t, s.Now().Own(""), "")
		}
	})
}
