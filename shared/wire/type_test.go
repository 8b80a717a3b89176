package wire

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// parts are messages that travel within others and are no frames themselves.
var parts = []protoreflect.Name{
	"Request", "Prefix", "Token", "Return", "Usage", "Extra", "Model",
}

func TestEveryMessageHasAType(t *testing.T) {
	var all []protoreflect.MessageDescriptor
	for _, file := range []protoreflect.FileDescriptor{
		wirepb.File_control_proto, wirepb.File_migration_proto,
	} {
		for i := range file.Messages().Len() {
			all = append(all, file.Messages().Get(i))
		}
	}
	for _, d := range all {
		name := d.Name()
		mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
		if err != nil {
			t.Fatal(err)
		}
		typ, ok := typeOf(mt.New().Interface())
		switch {
		case slices.Contains(parts, name):
			if ok {
				t.Errorf("%s is a part of others and has type %v", name, typ)
			}
		case !ok:
			t.Errorf("%s has no type", name)
		case typ.String() != string(name):
			t.Errorf("%s is called %v", name, typ)
		}
	}
	if got, want := len(messages), len(all)-len(parts); got != want {
		t.Errorf("%d types for %d messages", got, want)
	}
	if len(types) != len(messages) {
		t.Errorf("%d messages share %d types", len(types), len(messages))
	}
}

// The numbers are the protocol: changing one breaks old peers.
func TestTypeNumbersAreFixed(t *testing.T) {
	want := map[Type]string{
		0x01: "Error", 0x02: "Token", 0x03: "Rich",
		0x10: "ClientHello", 0x11: "Welcome", 0x12: "Generate", 0x13: "Assigned", 0x14: "Waiting", 0x15: "Swapped", 0x16: "Done",
		0x17: "Resume", 0x18: "Resumed", 0x19: "Ack", 0x1a: "Recovering", 0x4a: "Progressing",
		0x20: "Token", 0x21: "LinkHello", 0x22: "LinkWelcome", 0x23: "Attach", 0x24: "Refused", 0x25: "Credit", 0x26: "Cancel",
		0x2c: "Rich", 0x27: "Progress", 0x28: "WorkerStatus", 0x29: "Begin", 0x2a: "End", 0x2b: "Fail",
		0x30: "Register", 0x31: "Registered", 0x32: "Heartbeat", 0x33: "HeartbeatAck", 0x34: "HealthRequest", 0x35: "HealthReply",
		0x2d: "Revoke", 0x2e: "Feed", 0x2f: "Pivot",
		0x40: "Capture", 0x41: "Discard", 0x42: "Fetch", 0x43: "Hold", 0x44: "Prepared", 0x45: "Captured", 0x46: "Held", 0x47: "Rhythm", 0x48: "Allow", 0x49: "DrainMark",
		0x36: "Pull", 0x37: "Snapshot", 0x38: "Chunk", 0x39: "PullDone", // 0x3a and 0x3b were operators' once

	}
	for n := range Type(0x100) {
		name, ok := want[n]
		if !ok {
			name = fmt.Sprintf("type %#x", uint64(n))
		}
		if n.String() != name {
			t.Errorf("%#x is %q, want %q", uint64(n), n, name)
		}
	}
}

func TestEveryMessageSurvivesTheWire(t *testing.T) {
	for typ, empty := range messages {
		t.Run(typ.String(), func(t *testing.T) {
			for _, m := range []Message{newMessage(typ), filled(empty)} {
				f := frameOf(t, m)
				if f.Type != typ {
					t.Fatalf("framed as %v", f.Type)
				}
				got, err := Decode(f)
				if err != nil || !proto.Equal(got, m) {
					t.Fatalf("got %v, %v; want %v", got, err, m)
				}
			}
		})
	}
}

func TestDecodedMessagesDoNotAliasTheFrame(t *testing.T) {
	f := frameOf(t, filled((*wirepb.Attach)(nil)))
	m, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	clear(f.Body)
	if !proto.Equal(m, filled((*wirepb.Attach)(nil))) {
		t.Fatal("the message changed with the reader's buffer")
	}
}

func TestAppendRefusesWhatIsNoFrame(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("a Prefix was framed")
		}
	}()
	Append(nil, &wirepb.Prefix{})
}

func TestAFieldFromTheFutureIsIgnored(t *testing.T) {
	body := append(bytes.Clone(frameOf(t, &wirepb.Progress{Count: 4}).Body), 0xf8, 0x07, 0x01) // field 127
	m, err := Decode(Frame{Type: TypeProgress, Body: body})
	if p, ok := m.(*wirepb.Progress); err != nil || !ok || p.GetCount() != 4 {
		t.Fatal(m, err)
	}
}

func TestText(t *testing.T) {
	for _, s := range []string{
		"", "plain", "größe", "a\xffb", "\xff", strings.Repeat("a", 2000), strings.Repeat("ж", 600), strings.Repeat("€", 400),
		strings.Repeat("a\xff", 1000), strings.Repeat("x", 1023) + "ж",
	} {
		got := Text(s)
		if len(got) > 1024 || !utf8.ValidString(got) {
			t.Errorf("Text of %d bytes: %d bytes, valid %v", len(s), len(got), utf8.ValidString(got))
		}
		if utf8.ValidString(s) && len(s) <= 1024 && got != s {
			t.Errorf("Text(%q) = %q", s, got)
		}
		if keep := len(s) - 3; len(s) > 1024 && utf8.ValidString(s) && len(got) < min(keep, 1020) {
			t.Errorf("Text of %d bytes keeps only %d", len(s), len(got))
		}
	}
}

func TestError(t *testing.T) {
	sent := Errorf(CodeLimit, "prompt of %d bytes", 70_000)
	sent.Status, sent.Document = 413, []byte(`{"error":{}}`)
	got := FromMessage(sent.Proto())
	if !reflect.DeepEqual(got, sent) || got.Error() != "limit_exceeded: prompt of 70000 bytes" {
		t.Fatalf("got %v", got)
	}
	wrapped := fmt.Errorf("generate: %w", got)
	for _, tc := range []struct {
		target error
		want   bool
	}{
		{&Error{Code: CodeLimit}, true},
		{sent, true},
		{&Error{Code: CodeLimit, Message: "another"}, false},
		{&Error{Code: CodeInvalid}, false},
		{errors.New("limit_exceeded: prompt of 70000 bytes"), false},
	} {
		if errors.Is(wrapped, tc.target) != tc.want {
			t.Errorf("Is(%v) = %v", tc.target, !tc.want)
		}
	}
	if AsError(wrapped, CodeInternal) != got {
		t.Error("AsError does not find it in the chain")
	}
	if e := AsError(errors.New("disk full"), CodeInternal); e.Code != CodeInternal || e.Message != "disk full" {
		t.Error(e)
	}
}

func TestAnErrorOfAnyTextCanBeSent(t *testing.T) {
	e := Errorf(CodeEngine, "%s", strings.Repeat("\xfe", 5000))
	m, err := Decode(frameOf(t, e.Proto()))
	if err != nil || Code(m.(*ErrorMessage).GetCode()) != CodeEngine {
		t.Fatal(m, err)
	}
}

// filled returns a message of the same type with every field set.
func filled(m Message) Message {
	out := m.ProtoReflect().Type().New()
	fields := out.Descriptor().Fields()
	for i := range fields.Len() {
		fill(out, fields.Get(i))
	}
	return out.Interface()
}

func fill(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	if field.IsList() {
		list := m.Mutable(field).List()
		for range 3 {
			list.Append(value(field, list.NewElement))
		}
		return
	}
	m.Set(field, value(field, func() protoreflect.Value { return m.NewField(field) }))
}

func value(field protoreflect.FieldDescriptor, empty func() protoreflect.Value) protoreflect.Value {
	number := uint64(field.Number()) * 1000
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(number << 40)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-int64(number) << 40)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(field.Name()) + " ж")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("\xff" + field.Name()))
	default:
		return protoreflect.ValueOfMessage(filled(empty().Message().Interface()).ProtoReflect())
	}
}
