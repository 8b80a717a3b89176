package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	gaps := slices.Repeat([]time.Duration{20 * time.Millisecond}, 1000)
	good := outcome{attack: "x", streams: 25, gaps: gaps, asked: 10, ready: 10, memory: 50, log: 10}
	require.Empty(t, good.harm())
	require.Contains(t, good.String(), " ok")
	late := slices.Clone(gaps)
	for i := range late[:30] {
		late[i] = 101 * time.Millisecond
	}
	few := slices.Clone(gaps)
	few[7] = time.Second // one in a thousand
	for name, test := range map[string]struct {
		change func(o *outcome)
		want   string
	}{
		"refused":      {func(o *outcome) { o.refused, o.reason = 1, "full" }, "1 of 25 streams were not served (full)"},
		"failed":       {func(o *outcome) { o.failed, o.reason = 2, "broke" }, "2 of 25 streams were not served (broke)"},
		"late":         {func(o *outcome) { o.gaps = late }, "tokens came late"},
		"one late":     {func(o *outcome) { o.gaps = few }, ""},
		"nothing":      {func(o *outcome) { o.streams, o.gaps = 0, nil }, "no stream at all"},
		"unhealthy":    {func(o *outcome) { o.ready = 9 }, "no answer about its health"},
		"nobody asked": {func(o *outcome) { o.asked, o.ready = 0, 0 }, "no answer about its health"},
		"talkative":    {func(o *outcome) { o.log = 101 }, "it can fill a disk"},
	} {
		o := good
		test.change(&o)
		harm := strings.Join(o.harm(), "; ")
		if test.want == "" {
			require.Empty(t, harm, name)
			continue
		}
		require.Contains(t, harm, test.want, name)
		require.Contains(t, o.String(), "HARM: ", name)
	}
}
