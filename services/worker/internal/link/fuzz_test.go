package link

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// FuzzTether: a tether begins with an id, or is none; nothing behind that is read.
func FuzzTether(f *testing.F) {
	for _, s := range []string{"0123456789abcdef\n", "0123456789abcdef", "", "0123456789abcdefg\n", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nrest"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := &said{Reader: bytes.NewReader(b)}
		id, err := readTether(conn)
		whole := len(b) > tetherID && b[tetherID] == '\n'
		if (err == nil) != whole || whole && id != string(b[:tetherID]) {
			t.Errorf("%q: %q, %v", b, id, err)
		}
		if rest := conn.Len(); rest != max(0, len(b)-tetherID-1) {
			t.Errorf("%d of %d bytes are left", rest, len(b))
		}
	})
}

// said is a connection on which somebody says something.
type said struct {
	net.Conn
	*bytes.Reader
}

func (s *said) Read(p []byte) (int, error)      { return s.Reader.Read(p) }
func (s *said) SetReadDeadline(time.Time) error { return nil }
