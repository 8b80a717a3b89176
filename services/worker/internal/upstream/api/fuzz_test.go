package api

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

// Whatever comes, however it is cut into reads, is the same events, none of which is larger than allowed.
func FuzzEventReader(f *testing.F) {
	for _, seed := range []string{
		"data: a\n\ndata: b\ndata: c\r\n\r\n", "\xef\xbb\xbfdata:x\n\n", ": ping\n\n", "error: {}\n\n", "data", "data:\n\n", "\r\n", "id: 1\ndata: \n\n",
		"data: " + strings.Repeat("y", 9000) + "\n\n",
	} {
		f.Add([]byte(seed))
	}
	all := func(in io.Reader) (list []string, err error) {
		r := newEventReader(in)
		for {
			data, err := r.next()
			if err != nil {
				return list, err
			}
			if len(data) > maxEvent || len(bytes.TrimSpace(data)) == 0 {
				return list, errors.New("an event that there must not be")
			}
			list = append(list, string(data))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, err := all(bytes.NewReader(stream))
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errEventTooLarge) {
			t.Fatal(err)
		}
		pieces, again := all(iotest.OneByteReader(bytes.NewReader(stream)))
		if !errors.Is(again, err) || strings.Join(whole, "\x00") != strings.Join(pieces, "\x00") {
			t.Errorf("%q, %v in one read, %q, %v in many", whole, err, pieces, again)
		}
	})
}

// Whatever the events are, decoders return deltas of the choices that there are, or an *Error, and an outcome has a reason.
func FuzzDecoder(f *testing.F) {
	for _, name := range []string{"vllm_chat", "openai_tool_calls"} {
		capture, err := servertest.Capture(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(capture))
	}
	f.Add([]byte(`data: {"choices":[{"index":1,"delta":{"tool_calls":[{"function":{"name":"a"}}]},"token_ids":[1]}],"error":null}` + "\n\n"))
	f.Add([]byte(`data: {"content":"a","tokens":[1],"stop":true,"stop_type":"eos","tokens_predicted":3}` + "\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, d := range []decoder{newOpenAIDecoder(2), &nativeDecoder{}} {
			r := newEventReader(bytes.NewReader(stream))
			for {
				data, err := r.next()
				if err != nil {
					break
				}
				deltas, _, err := d.event(data, nil)
				if e := (*Error)(nil); err != nil && (!errors.As(err, &e) || e.Fault == "") {
					t.Fatalf("%T: %v", d, err)
				}
				for _, delta := range deltas {
					if delta.Choice < 0 || delta.Choice > 1 || delta.Tokens < 0 || len(delta.IDs) > 0 && delta.Tokens != len(delta.IDs) {
						t.Fatalf("%T: %+v", d, delta)
					}
				}
				if err != nil {
					break
				}
			}
			if finish, ok := d.outcome(); ok && finish.Reason == "" {
				t.Fatalf("%T: a finish without a reason", d)
			}
		}
	})
}

// BenchmarkChunk is what a chunk costs, from the bytes of the connection to the delta.
func BenchmarkChunk(b *testing.B) {
	const (
		chat = `data: {"id":"chatcmpl-c25212ff2e9b422b81cc50333723e854","object":"chat.completion.chunk","created":1762727516,"model":"TinyLlama/TinyLlama-1.1B-Chat-v1.0",` +
			`"choices":[{"index":0,"delta":{"content":" power"},"logprobs":null,"finish_reason":null,"token_ids":[3081]}]}` + "\n\n"
		native = `data: {"index":0,"content":" power","tokens":[3081],"stop":false,"id_slot":-1,"tokens_predicted":12,"tokens_evaluated":34}` + "\n\n"
	)
	for name, c := range map[string]struct {
		event string
		d     decoder
	}{"chat": {chat, newOpenAIDecoder(1)}, "native": {native, &nativeDecoder{}}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := newEventReader(strings.NewReader(strings.Repeat(c.event, b.N)))
			deltas := []Delta{}
			for b.Loop() {
				data, err := r.next()
				if errors.Is(err, io.EOF) {
					r = newEventReader(strings.NewReader(strings.Repeat(c.event, 1000)))
					continue
				}
				if err != nil {
					b.Fatal(err)
				}
				if deltas, _, err = c.d.event(data, deltas[:0]); err != nil || len(deltas) != 1 {
					b.Fatal(err)
				}
			}
		})
	}
}
