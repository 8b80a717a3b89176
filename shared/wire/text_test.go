package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestTextCanBeShown(t *testing.T) {
	for s, want := range map[string]string{
		"größe 世 🙂":                         "größe 世 🙂",
		"a\u202eb\u2066c\u200fd":            "a\ufffdb\ufffdc\ufffdd", // bidirectional controls
		"a\u200bb\u200dc\ufeffd":            "a\ufffdb\ufffdc\ufffdd", // nothing to be seen
		"a\U000e0041b":                      "a\ufffdb",               // a tag character
		"a\x1b[31mb\x00\x7f":                "a [31mb  ",
		"a\u009b31mb":                       "a 31mb", // an escape of one byte
		"two\r\nlines\tand\u2028more\u00a0": "two  lines and more ",
		"\ue000\ufffe":                      "\ufffd\ufffd", // of private use, and no character
		"bytes\xff\xfe":                     "bytes\ufffd\ufffd",
	} {
		if got := Text(s); got != want || Text(got) != got {
			t.Errorf("Text(%+q) = %+q, want %+q", s, got, want)
		}
	}
	if got := Name(strings.Repeat("ж", 100)); got != strings.Repeat("ж", 64) {
		t.Errorf("a long name becomes %q", got)
	}
	if got := Text(strings.Repeat("\x80", 5000)); len(got) > 1024 || len(got) < 1020 {
		t.Errorf("%d bytes are left", len(got))
	}
}

// TestDecodedTextsCanBeShown sends messages of each type with texts that deceive. Only prompts arrive as they are.
func TestDecodedTextsCanBeShown(t *testing.T) {
	const bad = "a\u202eb\nc"
	for typ, empty := range messages {
		m := filled(empty)
		eachText(m.ProtoReflect(), func(field protoreflect.FieldDescriptor, _ string) string { return bad })
		got, err := Decode(frameOf(t, m))
		if err != nil {
			t.Fatal(err)
		}
		eachText(got.ProtoReflect(), func(field protoreflect.FieldDescriptor, s string) string {
			want := "a\ufffdb c"
			if field.FullName() == "connswap.wire.v1.Request.prompt" {
				want = bad
			}
			if s != want {
				t.Errorf("%v: %s is %+q", typ, field.FullName(), s)
			}
			return s
		})
	}
	if e := FromMessage(&ErrorMessage{Code: "x", Message: "plain"}); strings.ContainsFunc(e.Message, unicode.IsControl) {
		t.Error(e)
	}
}

// eachText replaces each text in m by what change makes of it.
func eachText(m protoreflect.Message, change func(protoreflect.FieldDescriptor, string) string) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		text := field.Kind() == protoreflect.StringKind
		switch {
		case field.IsList():
			for i := range value.List().Len() {
				if text {
					value.List().Set(i, protoreflect.ValueOfString(change(field, value.List().Get(i).String())))
				} else if field.Message() != nil {
					eachText(value.List().Get(i).Message(), change)
				}
			}
		case text:
			m.Set(field, protoreflect.ValueOfString(change(field, value.String())))
		case field.Message() != nil:
			eachText(value.Message(), change)
		}
		return true
	})
}

func TestReadRequest(t *testing.T) {
	unknown := func(n int) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, n))
	}
	read := func(body []byte) (*wirepb.Generate, error) {
		stream := append(appendHeader(nil, TypeGenerate, len(body)), body...)
		return ReadRequest[*wirepb.Generate](NewReader(bytes.NewReader(stream), MaxPrompt))
	}
	body := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	asked := &wirepb.Request{Prompt: "river\n\u202e", Priority: 7}
	plain := body(&wirepb.Generate{Request: asked})

	got, err := read(append(bytes.Clone(plain), unknown(500)...))
	if err != nil || !proto.Equal(got.GetRequest(), asked) || len(got.ProtoReflect().GetUnknown()) != 0 {
		t.Errorf("a newer request becomes %v, %v", got, err)
	}
	within := proto.CloneOf(asked)
	within.ProtoReflect().SetUnknown(unknown(500))
	if got, err = read(body(&wirepb.Generate{Request: within})); err != nil || len(got.GetRequest().ProtoReflect().GetUnknown()) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	within.ProtoReflect().SetUnknown(unknown(100_000))
	long := &wirepb.Generate{Request: &wirepb.Request{Prompt: strings.Repeat("x", 5000)}}
	for name, b := range map[string][]byte{
		"unknown":        append(bytes.Clone(plain), unknown(100_000)...),
		"unknown within": body(&wirepb.Generate{Request: within}),
		"said twice":     append(body(long), body(long)...),
	} {
		if got, err := read(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, m := range []Message{Errorf(CodeShutdown, "bye").Proto(), &wirepb.Welcome{}} {
		r := NewReader(bytes.NewReader(Append(nil, m)), MaxControl)
		if _, err := ReadRequest[*wirepb.Generate](r); !errors.Is(err, ErrUnexpected) {
			t.Errorf("%T: %v", m, err)
		}
	}
}
