package operations

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire"
)

const (
	keepAlive  = 2 * time.Second // between two words to a follower
	longestKey = 255
)

// Post returns a handler that begins an operation with a JSON body of type T. The answer is a stream of events where the
// caller accepts one, else the result when it is there.
func Post[T any](t *Table, kind string, run func(ctx context.Context, body T, progress func(any)) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body T
		if status, err := decode(r, &body); err != nil {
			mgmt.RefuseWith(w, status, err)
			return
		}
		name := r.Header.Get("Idempotency-Key")
		if err := checkKey(name); err != nil {
			mgmt.Refuse(w, err)
			return
		}
		o, leave, err := t.Begin(Request{
			Kind: kind, Caller: mgmt.Caller(r), Key: name, Digest: digest(kind, body),
			Run: func(ctx context.Context, progress func(any)) (any, error) { return run(ctx, body, progress) },
		})
		if errors.Is(err, ErrOtherBody) {
			mgmt.RefuseWith(w, http.StatusUnprocessableEntity, err)
			return
		}
		if err != nil {
			mgmt.Refuse(w, err)
			return
		}
		defer leave()
		w.Header().Set("Location", "/v1/operations/"+o.ID)
		if acceptsEvents(r) {
			o.stream(w, r, 0)
		} else {
			o.answer(w, r)
		}
	}
}

// Get shows the operation {id} of the path: its events from Last-Event-ID on where the caller accepts a stream, else how it
// is now.
func (t *Table) Get(w http.ResponseWriter, r *http.Request) {
	o, err := t.Find(r.PathValue("id"))
	after := uint64(0)
	if text := r.Header.Get("Last-Event-ID"); err == nil && text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			err = wire.Errorf(wire.CodeInvalid, "Last-Event-ID is %.20q; give the id of the last event that came, or leave it out", text)
		}
	}
	switch {
	case err != nil:
		mgmt.Refuse(w, err)
	case acceptsEvents(r):
		defer o.Follow()()
		o.stream(w, r, after)
	default:
		mgmt.WriteJSON(w, http.StatusOK, o.describe())
	}
}

// Delete gives the operation {id} of the path up.
func (t *Table) Delete(w http.ResponseWriter, r *http.Request) {
	o, err := t.Find(r.PathValue("id"))
	if err != nil {
		mgmt.Refuse(w, err)
		return
	}
	o.GiveUp()
	mgmt.WriteJSON(w, http.StatusAccepted, o.describe())
}

// Document is an operation as it is shown.
type Document struct {
	Operation string          `json:"operation"`
	Kind      string          `json:"kind"`
	State     string          `json:"state"` // running, done, failed
	Progress  json.RawMessage `json:"progress,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     json.RawMessage `json:"error,omitempty"`
}

// describe returns the operation as it is now.
func (o *Operation) describe() Document {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := Document{Operation: o.ID, Kind: o.Kind, State: "running"}
	switch o.last.Name {
	case Progress:
		d.Progress = o.last.Data
	case Result:
		d.State, d.Result = "done", o.last.Data
	case Failure:
		d.State, d.Error = "failed", o.last.Data
	}
	return d
}

// answer waits for the end.
func (o *Operation) answer(w http.ResponseWriter, r *http.Request) {
	clearReadDeadline(w)
	last, err := o.Wait(r.Context())
	switch {
	case r.Context().Err() != nil: // the caller has left
	case err != nil:
		mgmt.Refuse(w, err)
	default:
		mgmt.WriteJSON(w, http.StatusOK, last.Data)
	}
}

// stream sends the events that follow the one with the number after, up to the last (HTML, §9.2, server-sent events).
func (o *Operation) stream(w http.ResponseWriter, r *http.Request, after uint64) {
	out, err := mgmt.StartEvents(w, o.ID)
	for err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), keepAlive)
		event, more, late := o.Next(ctx, after)
		cancel()
		switch {
		case r.Context().Err() != nil:
			return
		case late != nil:
			err = out.Ping()
			continue
		}
		after = event.Number
		if err = out.Send(event.Number, event.Name, event.Data); !more {
			return // that was the last word; whoever has left can ask again
		}
	}
}

// clearReadDeadline lets a request last: the one for reading it would end the wait for its answer.
func clearReadDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a writer without is a test's
}

func acceptsEvents(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(accept, ",") {
			if kind, _, err := mime.ParseMediaType(strings.TrimSpace(one)); err == nil && kind == "text/event-stream" {
				return true
			}
		}
	}
	return false
}

// digest is the same for the same request, however it is written.
func digest(kind string, body any) string {
	text, _ := json.Marshal(body) // it was JSON before
	sum := sha256.Sum256(append([]byte(kind), text...))
	return hex.EncodeToString(sum[:])
}

// decode reads a body, which has to be one JSON object with fields of v and no others. The error has its HTTP status.
func decode(r *http.Request, v any) (status int, err error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return http.StatusUnsupportedMediaType,
			wire.Errorf(wire.CodeInvalid, "the body has to be JSON; send it with the header Content-Type: application/json")
	}
	body, err := io.ReadAll(r.Body)
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return http.StatusRequestEntityTooLarge, wire.Errorf(wire.CodeInvalid, "the body has more than %d bytes", tooLong.Limit)
	}
	if err != nil {
		return http.StatusBadRequest, wire.Errorf(wire.CodeInvalid, "the body ended early")
	}
	if err := parse(body, v); err != nil {
		return http.StatusBadRequest, wire.Errorf(wire.CodeInvalid, "the body cannot be used: %s; it is a JSON object with %s",
			wire.Text(strings.TrimPrefix(err.Error(), "json: ")), fields(v))
	}
	clean(reflect.ValueOf(v).Elem())
	return http.StatusOK, nil
}

// parse is json.Unmarshal that refuses fields which v does not have.
func parse(body []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return err
	}
	if decoder.InputOffset() < int64(len(bytes.TrimRight(body, " \t\r\n"))) {
		return errors.New("something follows the object")
	}
	return nil
}

// fields lists what a body may have.
func fields(v any) string {
	var names []string
	for field := range reflect.TypeOf(v).Elem().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	if len(names) == 0 {
		return "no fields: {}"
	}
	return "the fields " + strings.Join(names, ", ")
}

// clean makes the texts of a body such as can be shown.
func clean(body reflect.Value) {
	for _, field := range body.Fields() {
		if field.Kind() == reflect.String {
			field.SetString(wire.Text(field.String()))
		}
	}
}

func checkKey(name string) error {
	if len(name) > longestKey || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r > unicode.MaxASCII }) {
		return wire.Errorf(wire.CodeInvalid, "Idempotency-Key has up to %d characters that can be printed", longestKey)
	}
	return nil
}
