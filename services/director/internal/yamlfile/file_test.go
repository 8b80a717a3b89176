package yamlfile_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"go.yaml.in/yaml/v3"

	"github.com/connswap/connswap/services/director/internal/yamlfile"
)

// TestWatch: a file is taken when it changes, and not otherwise; what is wrong with it is told once, and shown until it is good.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		write := func(content string) {
			require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
			require.NoError(t, os.Rename(path+".new", path))
			time.Sleep(3001 * time.Millisecond)
			synctest.Wait()
		}
		var taken, told []string
		core, logs := observer.New(zap.DebugLevel)
		write("a")
		start := time.Now()
		f, err := yamlfile.Open(path, yamlfile.Deps{
			Log: zap.New(core), Kept: "kept",
			Take: func(content []byte) error {
				taken = append(taken, string(content))
				if strings.HasPrefix(string(content), "bad") {
					return errors.New("this is " + string(content))
				}
				return nil
			},
			Read: func(err error) {
				if err == nil {
					err = errors.New("good")
				}
				told = append(told, err.Error())
			},
		})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { f.Watch(ctx) })
		defer watching.Wait()
		defer stop()

		write("a")
		require.Equal(t, []string{"a"}, taken)
		require.Empty(t, told)
		require.Equal(t, yamlfile.Status{Path: path, Loaded: start}, f.Status())
		write("bad 1")
		require.NoError(t, os.Remove(path))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		write("bad 1")
		require.Equal(t, yamlfile.Status{Path: path, Loaded: start, Error: "this is bad 1"}, f.Status())
		write("b")
		require.Equal(t, []string{"a", "bad 1", "b"}, taken, "each content once")
		require.Len(t, told, 4)
		require.Contains(t, told[1], "no such file")
		require.Equal(t, []string{"this is bad 1", "this is bad 1", "good"}, []string{told[0], told[2], told[3]})
		require.Equal(t, 3, logs.FilterMessage("kept").Len())
		require.Empty(t, f.Status().Error)
		require.Greater(t, f.Status().Loaded, start)

		require.NoError(t, os.Remove(path))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Contains(t, f.Status().Error, "no such file")
		write("b")
		require.Empty(t, f.Status().Error, "what counts is there again")
		require.Len(t, taken, 3)
	})
}

// TestReader has what each kind of value is, and is not.
func TestReader(t *testing.T) {
	type values struct {
		number, word int
		yes          bool
		list, names  []string
	}
	for content, want := range map[string]struct {
		values
		wrong string
	}{
		"{number: 3, yes: true, word: two, list: [a, b], names: {x: 1, y: 2}}": {values: values{3, 1, true, []string{"a", "b"}, []string{"x=1", "y=2"}}},
		"number: &n 3\nlist: *n\n":      {values: values{number: 3, list: []string{"3"}}},
		"number: 11\n":                  {wrong: `f.yaml:1: number is "11"; give a number from 1 to 10, or leave the field out for none`},
		"yes: yes\n":                    {wrong: `f.yaml:1: yes is "yes"; give true or false`},
		"word: tw\n":                    {wrong: `f.yaml:1: word is "tw"; did you mean two? give one or two`},
		"word: seventeen\n":             {wrong: `f.yaml:1: word is "seventeen"; give one or two`},
		"list: []\n":                    {wrong: `f.yaml:1: list: want one or more; leave the field out if none is meant`},
		"names: [x]\n":                  {wrong: `f.yaml:1: names: want names, with fields for each`},
		"names: {x: 1, x: 2}\n":         {wrong: `f.yaml:1: x for the second time`},
		"\n\nnumbr: 1\n":                {wrong: `f.yaml:3: there is no field "numbr"; did you mean number? there are list, names, number, word, yes`},
		"old: 1\n":                      {wrong: `f.yaml:1: old is over`},
		"<<: {number: 1}\n":             {wrong: `f.yaml:1: there is no field "<<"; there are list, names, number, word, yes`},
		"number: \"\\ud800\"\n":         {wrong: "f.yaml:"},
		"? [a]\n: 1\n":                  {wrong: `f.yaml:1: there is no field ""; there are list, names, number, word, yes`},
		strings.Repeat("[", 20_000):     {wrong: "f.yaml:"},
		"number: 1\n---\nnumber: 2\n":   {wrong: "f.yaml: more than one document; give one"},
		"":                              {wrong: "f.yaml: the file is empty; give something"},
		"number: 0\nyes: 1\nword: \n":   {wrong: `f.yaml:2: yes is "1"; give true or false; f.yaml:3: word is ""; give one or two`},
		"number: {}\nnumber: 1\nx: 1\n": {wrong: `f.yaml:1: number is "fields"; give a number from 1 to 10, or leave the field out for none; f.yaml:2: number for the second time`},
	} {
		var got values
		err := yamlfile.Parse("f.yaml", []byte(content), "something", func(r *yamlfile.Reader, n *yaml.Node) {
			r.FieldsOr(n, yamlfile.Fields{
				"number": func(n *yaml.Node) { got.number = r.Number("number", n, 1, 10) },
				"yes":    func(n *yaml.Node) { got.yes = r.Bool("yes", n) },
				"word":   func(n *yaml.Node) { got.word = r.OneOf("word", n, "one", "two") },
				"list":   func(n *yaml.Node) { r.Each("list", n, func(n *yaml.Node) { got.list = append(got.list, n.Value) }) },
				"names": func(n *yaml.Node) {
					r.Names("names", n, func(name, value *yaml.Node) { got.names = append(got.names, name.Value+"="+value.Value) })
				},
			}, func(name string) string {
				return map[string]string{"old": "old is over"}[name]
			})
		})
		if want.wrong == "" {
			require.NoError(t, err, content)
			require.Equal(t, want.values, got, content)
			continue
		}
		require.ErrorContains(t, err, want.wrong, content)
	}
}
