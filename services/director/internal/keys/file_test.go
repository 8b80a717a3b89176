package keys_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
)

func hashOf(key string) string {
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:])
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// file returns the keys of a file with some content.
func file(t *testing.T, content string) (k *keys.Keys, path string, logs *observer.ObservedLogs) {
	t.Helper()
	k, _, path, logs = opened(t, content)
	return k, path, logs
}

func opened(t *testing.T, content string) (k *keys.Keys, f *yamlfile.File, path string, logs *observer.ObservedLogs) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys.yaml")
	write(t, path, content)
	core, logs := observer.New(zap.DebugLevel)
	k, f, err := keys.Read(path, zap.New(core), nil)
	require.NoError(t, err)
	return k, f, path, logs
}

// TestHashOf: what sha256sum makes of the key, and another program of the standard's own example.
func TestHashOf(t *testing.T) {
	require.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", hashOf("abc")) // FIPS 180-2, appendix B.1
}

func TestWhatAFileSays(t *testing.T) {
	for name, content := range map[string]string{
		"yaml": fmt.Sprintf(`# who may come
keys:
  - name: team-a
    sha256: %s
    models: [markov, "org/model:8b"]
    requests_per_minute: 60
    tokens_per_minute: 9000
    max_streams: 4
    priority: 7
    standby: true
  - name: team-b
    sha256:
      - %s
      - %s
`, hashOf("a"), strings.ToUpper(hashOf("b")), hashOf("b-next")),
		"json": fmt.Sprintf(`{"keys":[{"name":"team-a","sha256":"%s","models":["markov","org/model:8b"],"requests_per_minute":60,
			"tokens_per_minute":9000,"max_streams":4,"priority":7,"standby":true},{"name":"team-b","sha256":["%s","%s"]}]}`, hashOf("a"), hashOf("b"), hashOf("b-next")),
		"with an alias": fmt.Sprintf(`keys:
  - {name: team-a, sha256: %s, models: &few [markov, "org/model:8b"], requests_per_minute: 60, tokens_per_minute: 9000, max_streams: 4, priority: 7, standby: true}
  - {name: team-b, sha256: [%s, %s]}
  - {name: team-c, sha256: %s, models: *few}
`, hashOf("a"), hashOf("b"), hashOf("b-next"), hashOf("c")),
	} {
		t.Run(name, func(t *testing.T) {
			k, _, _ := file(t, content)
			a, ok := k.Authenticate("a")
			require.True(t, ok)
			require.Equal(t, "team-a", a.Name())
			require.Equal(t, "key team-a", a.Holder("10.0.0.1"))
			require.Equal(t, []uint32{7, 3, 7}, []uint32{a.Priority(0), a.Priority(3), a.Priority(200)})
			require.True(t, a.MayUse("markov", "markov") && a.MayUse("org/model:8b", "org/model:8b"))
			require.False(t, a.MayUse("counter", "counter"))
			require.True(t, a.MayStandBy())
			limits := a.Limits()
			require.Equal(t, []keys.Limit{{Of: "requests", Most: 60, Left: 60}, {Of: "tokens", Most: 9000, Left: 9000}}, limits)

			for _, key := range []string{"b", "b-next"} {
				b, ok := k.Authenticate(key)
				require.True(t, ok)
				require.Equal(t, "team-b", b.Name())
				require.True(t, b.MayUse("counter", "counter"))
				require.Empty(t, b.Limits())
				require.False(t, b.MayStandBy())
				require.Zero(t, b.Priority(9))
			}
			for _, key := range []string{"", "A", "a ", hashOf("a"), "team-a"} {
				_, ok := k.Authenticate(key)
				require.False(t, ok, key)
			}
			if c, ok := k.Authenticate("c"); ok {
				require.True(t, c.MayUse("markov", "markov"))
				require.False(t, c.MayUse("counter", "counter"))
			}
		})
	}
}

func TestNobody(t *testing.T) {
	k, _, _ := file(t, "keys: []")
	for _, key := range []string{"", "a"} {
		_, ok := k.Authenticate(key)
		require.False(t, ok)
	}
}

// TestWithoutAFile: a nil Keys lets everybody in, and a nil Key may do everything.
func TestWithoutAFile(t *testing.T) {
	var k *keys.Keys
	key, ok := k.Authenticate("")
	require.True(t, ok)
	require.Nil(t, key)
	require.Empty(t, k.Usage())
	require.Empty(t, key.Name())
	require.Equal(t, "10.0.0.1", key.Holder("10.0.0.1"))
	require.Equal(t, uint32(9), key.Priority(9))
	require.True(t, key.MayUse("anything", "anything"))
	require.True(t, key.MayStandBy())
	require.Empty(t, key.Limits())
	grant, err := key.Admit()
	require.NoError(t, err)
	grant.Meter(func() (uint64, uint64) { return 1, 1 })
	grant.Close()
}

func TestWhatIsWrongWithAFile(t *testing.T) {
	good := "keys:\n- name: a\n  sha256: " + hashOf("a") + "\n"
	for name, c := range map[string]struct{ content, want string }{
		"empty":           {"", "the file is empty; give keys: and a list, with [] for nobody"},
		"no yaml":         {"keys:\n- name: [\n", "keys.yaml:2: did not find expected node content"},
		"a list":          {"- name: a\n", "keys.yaml:1: want fields: keys"},
		"nothing":         {"{}", "keys.yaml:1: keys is missing; give a list, with [] for nobody"},
		"no list":         {"keys:\n  name: a\n", "keys.yaml:2: keys: want a list, with [] for nobody"},
		"two documents":   {good + "---\n" + good, "more than one document; give one"},
		"field":           {good + "  rpm: 3\n", `keys.yaml:4: there is no field "rpm"; there are max_streams, models, name, priority, requests_per_minute, sha256, standby, tokens_per_minute`},
		"nearly a field":  {good + "  max_stream: 3\n", `keys.yaml:4: there is no field "max_stream"; did you mean max_streams? there are max_streams, models`},
		"field outside":   {good + "limits: 3\n", `keys.yaml:4: there is no field "limits"; there are keys`},
		"standby":         {good + "  standby: maybe\n", `keys.yaml:4: standby is "maybe"; give true or false`},
		"twice":           {good + "  name: b\n", "keys.yaml:4: name for the second time"},
		"no name":         {"keys:\n- sha256: " + hashOf("a"), "keys.yaml:2: name: not a name; give 1 to 253 letters"},
		"name":            {"keys:\n- name: a b\n  sha256: " + hashOf("a"), "keys.yaml:2: name: not a name"},
		"same name":       {good + "- name: a\n  sha256: " + hashOf("b"), `keys.yaml:4: name: there is a key "a" already; one name can have several: sha256: [first, second]`},
		"same key":        {good + "- name: b\n  sha256: " + hashOf("a"), "keys.yaml:4: sha256: the key of b is that of a too; give each its own"},
		"no key":          {"keys:\n- name: a\n", "keys.yaml:2: sha256 is missing; give 64 hexadecimal digits, as printf"},
		"the key itself":  {"keys:\n- name: a\n  sha256: sk-secret\n", "keys.yaml:3: sha256: this is none; give 64 hexadecimal digits, as printf"},
		"hash of nothing": {"keys:\n- name: a\n  sha256: " + hashOf("") + "\n", "keys.yaml:3: sha256: this is the hash of nothing"},
		"negative":        {good + "  requests_per_minute: -1\n", `keys.yaml:4: requests_per_minute is "-1"; give a number from 1 to 1000000000, or leave the field out for none`},
		"zero":            {good + "  max_streams: 0\n", `keys.yaml:4: max_streams is "0"; give a number from 1 to`},
		"fraction":        {good + "  tokens_per_minute: 1.5\n", `keys.yaml:4: tokens_per_minute is "1.5"; give a number`},
		"priority":        {good + "  priority: 256\n", `keys.yaml:4: priority is "256"; give a number from 0 to 255`},
		"no models":       {good + "  models: []\n", "keys.yaml:4: models: want one or more; leave the field out if none is meant"},
		"models":          {good + "  models: [[a]]\n", "keys.yaml:4: models: want names of models"},
		"a key of no use": {good + "- 3\n", "keys.yaml:4: want fields: max_streams"},
		"all at once":     {good + "  rpm: 3\n  tpm: 4\n", "keys.yaml:5: there is no field"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.yaml")
			write(t, path, c.content)
			_, _, err := keys.Read(path, zap.NewNop(), nil)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "sk-secret")
		})
	}
	_, _, err := keys.Read(filepath.Join(t.TempDir(), "keys.yaml"), zap.NewNop(), nil)
	require.ErrorContains(t, err, "no such file")
}

// TestExampleOfTheDocs: it can be used as it is.
func TestExampleOfTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../../../docs/OPERATIONS.md")
	require.NoError(t, err)
	_, example, found := strings.Cut(string(docs), "```yaml\nkeys:\n")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "```")
	_, _, logs := file(t, "keys:\n"+example)
	require.Equal(t, int64(2), logs.All()[0].ContextMap()["names"])
}

func TestTooMany(t *testing.T) {
	var content strings.Builder
	content.WriteString("keys:\n")
	for i := range 1001 {
		fmt.Fprintf(&content, "- {name: k%d, sha256: %s}\n", i, hashOf(fmt.Sprint(i)))
	}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	write(t, path, content.String())
	_, _, err := keys.Read(path, zap.NewNop(), nil)
	require.ErrorContains(t, err, "keys.yaml:2: keys: 1001 of them, at most 1000 are allowed")
	write(t, path, strings.Repeat("# nothing\n", 200_000))
	_, _, err = keys.Read(path, zap.NewNop(), nil)
	require.ErrorContains(t, err, "has more than 1048576 bytes")
}

func FuzzFile(f *testing.F) {
	f.Add("keys:\n- &a {name: a, sha256: [x], models: *a, priority: 3}\n")
	f.Add("keys: &a [*a]")
	f.Add(`{"keys":[{"name":1,"sha256":{}}]}`)
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(t.TempDir(), "keys.yaml")
		write(t, path, content)
		k, _, err := keys.Read(path, zap.NewNop(), nil)
		if err == nil {
			_, ok := k.Authenticate("")
			require.False(t, ok)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	var content strings.Builder
	content.WriteString("keys:\n")
	for i := range 1000 {
		fmt.Fprintf(&content, "- {name: k%d, sha256: %s}\n", i, hashOf(fmt.Sprint(i)))
	}
	path := filepath.Join(b.TempDir(), "keys.yaml")
	require.NoError(b, os.WriteFile(path, []byte(content.String()), 0o600))
	k, _, err := keys.Read(path, zap.NewNop(), nil)
	require.NoError(b, err)
	for name, key := range map[string]string{"first": "0", "last": "999", "none": "x"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				k.Authenticate(key)
			}
		})
	}
}
