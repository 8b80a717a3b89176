package operator

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/connswap/connswap/shared/wire"
)

// FuzzEvents reads what is, or is not, a stream of events. It ends in a result, or in an error that can be shown.
func FuzzEvents(f *testing.F) {
	f.Add(": hello\n\nid: 1\nevent: progress\ndata: {\"remaining\":1}\n\nid: 2\nevent: result\ndata: {}\n\n")
	f.Add("event: error\ndata: {\"code\":\"conflict\",\"message\":\"not now\"}\r\n\r\n")
	f.Add("event:result\ndata:1\n")
	f.Add("\x00\xff\nevent\n\ndata: \u202e\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		o := &operation{progress: func(json.RawMessage) {}}
		err := readEvents(bufio.NewReaderSize(strings.NewReader(text), 64), func() {}, func(e sent) (bool, error) { return o.event(e.name, e.data) })
		if err == nil {
			if !strings.Contains(text, "event") {
				t.Errorf("a result out of %q", text)
			}
			return
		}
		if known := wire.AsError(err, ""); known.Code == "" || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is told as %q", text, err)
		}
	})
}
