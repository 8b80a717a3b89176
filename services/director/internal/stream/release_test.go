package stream_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// shown reads what may be shown, and adds it to the text.
func (r *record) shown(t *testing.T, text string) string {
	t.Helper()
	for rest := r.take(1 << 10); len(rest) > 0; {
		f, size := wire.ParseFrame(rest)
		rest = rest[size:]
		if c, err := wire.ParseChunk(f); f.IsChunk() && err == nil {
			text += string(c.Text)
		}
	}
	return text
}

// TestRelease appends texts chunk by chunk, and says after each what may be shown.
func TestRelease(t *testing.T) {
	for name, test := range map[string]struct {
		release stream.Release
		chunks  string // separated by |
		shown   string // after each
		stopped bool
	}{
		"nothing to hold":           {stream.Release{}, "a|b", "a|ab", false},
		"a stop string in a chunk":  {stream.Release{Stop: []string{"END"}}, "a|bENDc|d", "a|ab", true},
		"at the beginning of one":   {stream.Release{Stop: []string{"END"}}, "a|END", "a|a", true},
		"across chunks":             {stream.Release{Stop: []string{"END"}}, "a|bE|N|Dc", "a|a|a|ab", true},
		"all of it is the stop":     {stream.Release{Stop: []string{"END"}}, "E|N|D", "||", true},
		"almost":                    {stream.Release{Stop: []string{"END"}}, "aE|N|Xb|c", "||aENXb|aENXbc", false},
		"almost, and then it is":    {stream.Release{Stop: []string{"aab"}}, "a|a|a|b", "||a|a", true},
		"of several the first":      {stream.Release{Stop: []string{"later", "two", "w"}}, "one |two later", "one |one ", true},
		"a stop within a longer":    {stream.Release{Stop: []string{"abcd", "bc"}}, "xab|c", "|xa", true},
		"it ends while text waits":  {stream.Release{Stop: []string{"END"}}, "aE|N", "|", false},
		"half a character":          {stream.Release{Characters: true}, "a\xc3|\xa4b", "|aäb", false},
		"a character in four":       {stream.Release{Characters: true}, "\xf0|\x9f|\x98|\x80|!", "|||😀|😀!", false},
		"no character at all":       {stream.Release{Characters: true}, "a\xff|\x80\x80|b", "a\xff|a\xff\x80\x80|a\xff\x80\x80b", false},
		"an empty chunk in between": {stream.Release{Stop: []string{"END"}}, "E||ND", "||", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(stream.Config{MaxBytes: 1000, MaxTokens: 100, Window: 1, Release: test.release})
			r.Expect(1)
			r.Begun(1)
			var all, text string
			wants := strings.Split(test.shown, "|")
			for i, chunk := range strings.Split(test.chunks, "|") {
				all += chunk
				r.Append(wire.Chunk{Epoch: 1, Sequence: uint64(i + 1), Text: []byte(chunk)}, time.Now())
				if i == 0 {
					r.Serve(1, "a", &wirepb.Assigned{})
				}
				if text = r.shown(t, text); i < len(wants) && text != wants[i] {
					t.Errorf("after chunk %d %q may be shown, want %q", i+1, text, wants[i])
				}
				if _, _, ok := r.Credit(1); !ok && r.Status().Epoch == 1 {
					t.Errorf("after chunk %d the worker may send no more", i+1)
				}
			}
			stopped := false
			for _, n := range r.notices {
				stopped = stopped || n == stream.Notice{Kind: stream.Stopped, Epoch: 1}
			}
			if stopped != test.stopped || stopped != (r.Status().Epoch == 0) {
				t.Errorf("told %v, epoch %d", r.notices, r.Status().Epoch)
			}
			r.Close(&wirepb.Done{})
			if want := wants[len(wants)-1]; test.stopped && r.shown(t, text) != want || !test.stopped && r.shown(t, text) != all {
				t.Errorf("at the end %q was shown", text)
			}
		})
	}
}

// TestReleaseOfMany cuts random texts at random places, with marks between them and workers that change: what is shown is
// always part of what should be, nothing else is ever, and all of it at the end; log and text agree on the digest.
func TestReleaseOfMany(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	pick := func(n int, letters string) string {
		var b strings.Builder
		for range n {
			b.WriteByte(letters[random.IntN(len(letters))])
		}
		return b.String()
	}
	stops := 0
	for range 3000 {
		release := stream.Release{Characters: random.IntN(2) == 0}
		for range random.IntN(3) {
			release.Stop = append(release.Stop, pick(1+random.IntN(4), "ab"))
		}
		whole := pick(random.IntN(60), "aabbc\xc3\xa4")
		want, stopped := whole, false
		for _, stop := range release.Stop {
			if i := strings.Index(want+whole[len(want):], stop); i >= 0 && i <= len(want) {
				want, stopped = whole[:i], true
			}
		}
		r := newRecord(stream.Config{MaxBytes: 1 << 20, MaxTokens: 1000, Window: 1000, Release: release})
		r.serveEmpty(1)
		text, epoch := "", uint64(1)
		for rest := whole; len(rest) > 0 && r.Status().Epoch != 0; {
			n := 1 + random.IntN(min(len(rest), 200))
			r.Append(wire.Chunk{Epoch: epoch, Sequence: r.Len() + 1, Text: []byte(rest[:n])}, time.Now())
			rest = rest[n:]
			switch random.IntN(6) {
			case 0:
				r.Mark(&wirepb.Waiting{Reason: strings.Repeat("w", random.IntN(300))})
			case 1:
				if r.Status().Epoch != 0 {
					epoch++
					r.serveEmpty(epoch)
				}
			}
			text = r.shown(t, text)
			if !strings.HasPrefix(want, text) || release.Characters && !utf8.ValidString(text) && utf8.ValidString(whole) {
				t.Fatalf("of %q with %+v %q was shown, want at most %q", whole, release, text, want)
			}
		}
		r.Close(&wirepb.Done{})
		text = r.shown(t, text)
		digest, _ := r.Digest()
		if text != want || digest != session.DigestOf([]byte(want)) || stopped != (r.Status().Epoch == 0 && wasStopped(r)) {
			t.Fatalf("of %q with %+v %q was shown, want %q, stopped %v, told %v", whole, release, text, want, stopped, r.notices)
		}
		if stopped {
			stops++
		}
	}
	if stops < 500 {
		t.Errorf("only %d texts had a stop string", stops)
	}
}

func wasStopped(r *record) bool {
	for _, n := range r.notices {
		if n.Kind == stream.Stopped {
			return true
		}
	}
	return false
}

// serveEmpty makes an epoch the present one, with an empty chunk.
func (r *record) serveEmpty(epoch uint64) {
	r.Expect(epoch)
	r.Begun(epoch)
	r.Append(wire.Chunk{Epoch: epoch, Sequence: r.Len() + 1}, time.Now())
	r.Serve(epoch, "a", &wirepb.Swapped{Epoch: epoch})
}

// TestReleaseCalls: of tool calls only whole ones are shown, wherever their JSON is cut; what is said beside them waits for them, in its
// order.
func TestReleaseCalls(t *testing.T) {
	const first, second = `{"name":"f","arguments":{"a":[1,"}\"]"]}}`, `[{"b":2}]`
	const calls = first + second + `{"half":`
	for size := 1; size <= len(calls); size++ {
		r := newRecord(stream.Config{MaxBytes: 10_000, MaxTokens: 200, Window: 1, Release: stream.Release{Calls: true}})
		r.Expect(1)
		r.Begun(1)
		sequence, shown := uint64(0), ""
		say := func(channel wire.Channel, text string) {
			sequence++
			c := wire.Chunk{Epoch: 1, Sequence: sequence, Text: []byte(text)}
			if channel != wire.Content {
				c.Rich = &wire.Rich{Channel: channel, Tokens: 1}
			}
			r.Append(c, time.Now())
			if sequence == 1 {
				r.Serve(1, "a", &wirepb.Assigned{})
			}
			shown = r.shown(t, shown)
			if _, _, ok := r.Credit(1); !ok {
				t.Errorf("cut every %d bytes, after chunk %d the worker may send no more", size, sequence)
			}
		}
		say(wire.Content, "I call. ")
		for at := 0; at < len(calls); at += size {
			say(wire.ToolCall, calls[at:min(at+size, len(calls))])
			switch strings.TrimPrefix(shown, "I call. ") {
			case "", first, first + second:
			default:
				t.Errorf("cut every %d bytes: %q is shown", size, shown)
			}
		}
		if size == 1 && !strings.HasSuffix(shown, second) {
			t.Errorf("of whole calls %q is shown", shown)
		}
		say(wire.Content, "Well?")
		if strings.Contains(shown, "half") || strings.Contains(shown, "Well") {
			t.Errorf("cut every %d bytes: %q is shown", size, shown)
		}
		r.Close(&wirepb.Done{})
		for before := "."; shown != before; { // it comes in several pieces
			before, shown = shown, r.shown(t, shown)
		}
		if shown != "I call. "+calls+"Well?" {
			t.Errorf("cut every %d bytes, at the end %q was shown", size, shown)
		}
	}
}
