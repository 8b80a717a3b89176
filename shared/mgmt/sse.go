package mgmt

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// EventStream is an answer of server-sent events (HTML, §9.2). One goroutine uses it.
type EventStream struct {
	w   io.Writer
	out *http.ResponseController
}

// StartEvents begins such an answer with a comment. The error says that nobody reads it any more, as those of the methods do.
func StartEvents(w http.ResponseWriter, comment string) (*EventStream, error) {
	s := &EventStream{w: w, out: http.NewResponseController(w)}
	_ = s.out.SetReadDeadline(time.Time{}) // the one for reading the request would end the answer; a writer without is a test's
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // proxies that collect an answer would keep it
	return s, s.write(": " + comment + "\nretry: 1000\n\n")
}

// Send sends an event; data is one line.
func (s *EventStream) Send(id uint64, name string, data []byte) error {
	return s.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", id, name, data))
}

// Ping shows that somebody is there.
func (s *EventStream) Ping() error { return s.write(": still there\n\n") }

func (s *EventStream) write(text string) error {
	if _, err := io.WriteString(s.w, text); err != nil {
		return err
	}
	return s.out.Flush()
}
