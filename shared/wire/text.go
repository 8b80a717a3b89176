package wire

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

const (
	maxText = 1 << 10 // bytes of a text for people
	maxName = 128     // bytes of a name that a peer gives itself
)

// Text makes s fit to be sent and to be shown, in logs, documents and terminals: one line of at most 1 KiB of valid UTF-8.
// Controls become spaces, and U+FFFD whatever else is not printed: it changes the direction or the look of other characters, or
// cannot be seen. Use it for what comes from errors and from outside.
func Text(s string) string { return printable(s, maxText) }

// Name is Text of at most 128 bytes, for what there is one of for each peer.
func Name(s string) string { return printable(s, maxName) }

func printable(s string, most int) string {
	s = s[:min(len(s), 2*most)] // what is left of that is more than most
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		}
		return unicode.ReplacementChar
	}, s)
	if len(s) <= most {
		return s
	}
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// prompt is the only text that is not for people: it goes to the engine as it is.
var prompt = (*wirepb.Request)(nil).ProtoReflect().Descriptor().Fields().ByName("prompt").FullName()

// worded are the types of frames that have texts.
var worded = func() map[Type]bool {
	types := make(map[Type]bool, len(messages))
	for t, m := range messages {
		types[t] = hasText(m.ProtoReflect().Descriptor())
	}
	return types
}()

func hasText(d protoreflect.MessageDescriptor) bool {
	for i := range d.Fields().Len() {
		field := d.Fields().Get(i)
		if isText(field) || field.Message() != nil && hasText(field.Message()) {
			return true
		}
	}
	return false
}

func isText(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.StringKind && field.FullName() != prompt
}

// makePrintable makes a Text of each text in m.
func makePrintable(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList():
			list := value.List()
			for i := range list.Len() {
				if isText(field) {
					list.Set(i, protoreflect.ValueOfString(Text(list.Get(i).String())))
				} else if field.Message() != nil {
					makePrintable(list.Get(i).Message())
				}
			}
		case isText(field):
			m.Set(field, protoreflect.ValueOfString(Text(value.String())))
		case field.Message() != nil:
			makePrintable(value.Message())
		}
		return true
	})
}
