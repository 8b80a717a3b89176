package servertest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"
)

// object is a JSON object that is being made.
type object = map[string]any

// errEnded is a stream that a fault has ended: nothing more is to be sent.
var errEnded = errors.New("ended by a fault")

// finishError is a stream that a fault makes finish.
type finishError struct{ reason string }

func (e finishError) Error() string { return "made to finish: " + e.reason }

// stream writes server-sent events, and carries faults out. One goroutine uses it.
type stream struct {
	ctx     context.Context
	server  *Server
	job     *job
	w       http.ResponseWriter
	control *http.ResponseController
	ping    time.Duration // negative for none
	sent    int           // events
	last    []byte        // event
}

func (s *Server) newStream(ctx context.Context, w http.ResponseWriter, j *job) *stream {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	t := &stream{ctx: ctx, server: s, job: j, w: w, control: http.NewResponseController(w), ping: s.options.Ping}
	if own := j.body.PingInterval; own != nil && t.ping > 0 {
		t.ping = time.Duration(*own) * time.Second
	}
	_ = t.control.Flush() // the next write fails if this does
	return t
}

// send sends an event.
func (t *stream) send(event object) error {
	applyToEvent(t.job.faults, event)
	data, err := json.Marshal(event)
	if err != nil {
		return err
	}
	return t.data(data)
}

// done sends the event that ends streams of the OpenAI API.
func (t *stream) done() error { return t.data([]byte("[DONE]")) }

// data sends an event, or what a fault makes of it.
func (t *stream) data(data []byte) error {
	if err := t.server.pass(t.ctx); err != nil {
		return err
	}
	event := append(append([]byte("data: "), data...), "\n\n"...)
	for _, fault := range t.job.faults {
		if fault.At != t.sent {
			continue
		}
		replaced, err := t.suffer(fault, event)
		if err != nil {
			return err
		}
		event = replaced
	}
	if err := t.write(event); err != nil {
		return err
	}
	t.last = event
	t.sent++
	return nil
}

// suffer carries out a fault whose place has come, and returns what is to be written instead of the event.
func (t *stream) suffer(fault Fault, event []byte) ([]byte, error) {
	switch fault.Kind {
	case Reset:
		reset(t.w)
		return nil, errEnded
	case CutEvent:
		_ = t.write(event[:len(event)/2]) // the connection is reset anyway
		reset(t.w)
		return nil, errEnded
	case HalfEvent:
		_ = t.write(event[:len(event)/2]) // the stream ends anyway
		return nil, errEnded
	case Silence:
		<-t.ctx.Done()
		return nil, context.Cause(t.ctx)
	case Stall:
		return event, t.server.sleep(t.ctx, fault.Delay)
	case Garbage:
		return []byte("data: {\"id\":\"chatcm\n\n"), nil
	case SilentEnd:
		t.sendLastWords()
		return nil, errEnded
	case ErrorEvent:
		return nil, t.sendFailure(internal())
	case Duplicate:
		return append(append([]byte(nil), t.last...), event...), nil
	case Aborted:
		return nil, finishError{"abort"}
	case ContentFilter:
		return nil, finishError{"content_filter"}
	default:
		return event, nil
	}
}

// sendFailure ends the stream with an error, as the kind does. The error is errEnded.
func (t *stream) sendFailure(f *failure) error {
	data, err := json.Marshal(t.server.dialect.streamFailure(f))
	if err != nil {
		return err
	}
	_ = t.write([]byte("data: " + string(data) + "\n\n")) // the stream ends anyway
	t.sent++
	if t.server.dialect.doneAfterFailure() {
		_ = t.write([]byte("data: [DONE]\n\n"))
		t.sent++
	}
	return errEnded
}

func (t *stream) sendLastWords() {
	if event := t.server.dialect.lastWords(t.job); event != nil {
		data, _ := json.Marshal(event)                        // of plain values
		_ = t.write([]byte("data: " + string(data) + "\n\n")) // the stream ends anyway
		t.sent++
	}
}

func (t *stream) write(data []byte) error {
	if _, err := t.w.Write(data); err != nil {
		return err
	}
	return t.control.Flush()
}

// wait waits, with pings if the kind has some.
func (t *stream) wait(d time.Duration) error {
	for t.ping > 0 && d > t.ping {
		if err := t.server.sleep(t.ctx, t.ping); err != nil {
			return err
		}
		if err := t.write([]byte(": ping\n\n")); err != nil {
			return err
		}
		d -= t.ping
	}
	return t.server.sleep(t.ctx, d)
}

// reset closes the connection of a request in a way that its client does not take for an end.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) //nolint:forbidigo // how a handler breaks a connection that it cannot have
	}
	abort(conn)
}

// abort closes a connection at once, with what has not been sent.
func abort(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closed anyway
	}
	_ = conn.Close()
}
