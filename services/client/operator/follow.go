package operator

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire"
)

const (
	// silence is after which a connection counts as lost: a director says something every two seconds.
	silence = 5 * time.Second
	// reconnecting is how long a lost connection may take to come back; a director gives a request up after ten seconds.
	reconnecting = 5 * time.Second
	firstPause   = 50 * time.Millisecond
	longPause    = time.Second
	// farewell is how long it may take to tell a director that a request is given up.
	farewell = time.Second
	// eventLimit is what a line of an event may have, in bytes.
	eventLimit = 1 << 20
)

// What may have another end on another connection.
var (
	errSilent   = wire.Errorf(wire.CodeLost, "no connection: nothing came from the director any more")
	errNoResult = missing("result")
)

// operation is a request that is followed to its end, over several connections if need be.
type operation struct {
	client   *Client
	kind     string
	body     []byte
	progress func(json.RawMessage)

	key      string // by which the director knows that it is the same request again
	location string // where it can be followed; empty before the director has said so
	last     string // id of the last event that came
	result   json.RawMessage
}

// do asks for something to be done, and returns the result. progress gets what comes before that; it is called by this
// goroutine. When ctx ends, or the Client is closed, the request is given up, and the director told.
func (c *Client) do(ctx context.Context, kind string, body any, progress func(json.RawMessage)) (json.RawMessage, error) {
	ctx, end := c.begin(ctx)
	defer end()
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fault.Wrap(wire.CodeInvalid, "the request", err)
	}
	o := &operation{client: c, kind: kind, body: text, progress: progress, key: identity.NewID()}
	if err := o.follow(ctx); err != nil {
		if ctx.Err() != nil {
			o.giveUp(ctx)
		}
		return nil, duringRequest(ctx, err)
	}
	return o.result, nil
}

// follow reads events to the last one.
func (o *operation) follow(ctx context.Context) error {
	return follow(ctx, o.open, func(e sent) (bool, error) {
		o.last = e.id
		return o.event(e.name, e.data)
	})
}

// follow reads events until take reports that one was the last. After a lost connection it goes on with another, which open
// opens.
func follow(ctx context.Context, open func(context.Context) (*http.Response, error), take func(sent) (over bool, err error)) error {
	var deadline time.Time // for another connection; zero while there is one
	for wait := firstPause; ; wait = min(2*wait, longPause) {
		came := false
		err := listen(ctx, open, func(e sent) (bool, error) {
			came = true
			return take(e)
		})
		if err == nil || ctx.Err() != nil || isLast(err) {
			return err
		}
		if came || deadline.IsZero() {
			deadline, wait = time.Now().Add(reconnecting), firstPause
		}
		if time.Now().Add(wait).After(deadline) {
			return err
		}
		if pause(ctx, wait) != nil {
			return err
		}
	}
}

// isLast reports whether err is the director's word, and no accident of a connection.
func isLast(err error) bool {
	var known *wire.Error
	return errors.As(err, &known) && !errors.Is(err, errSilent) && !errors.Is(err, errNoResult)
}

// listen reads events on one connection.
func listen(ctx context.Context, open func(context.Context) (*http.Response, error), take func(sent) (over bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer quiet.Stop()
	resp, err := open(ctx)
	if err == nil {
		defer resp.Body.Close()
		err = readEvents(bufio.NewReaderSize(resp.Body, 4<<10), func() { quiet.Reset(silence) }, take)
	}
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// open sends the request, or asks for the events that are still missing.
func (o *operation) open(ctx context.Context) (*http.Response, error) {
	header := http.Header{"Accept": {"text/event-stream"}, "Idempotency-Key": {o.key}}
	if o.location == "" {
		resp, err := o.client.send(ctx, http.MethodPost, "/v1/"+o.kind, o.body, header)
		if err == nil {
			o.location = resp.Header.Get("Location")
		}
		return resp, err
	}
	if o.last != "" {
		header.Set("Last-Event-ID", o.last)
	}
	resp, err := o.client.send(ctx, http.MethodGet, o.location, nil, header)
	if errors.Is(err, &wire.Error{Code: wire.CodeNotFound}) {
		err = fault.New(wire.CodeLost, err, "no connection: the director was started again, and knows nothing of the request")
	}
	return resp, err
}

// sent is one event as it came.
type sent struct{ id, name, data string }

// readEvents reads events until take reports that one was the last. heard is called with each line.
func readEvents(stream *bufio.Reader, heard func(), take func(sent) (over bool, err error)) error {
	var e sent
	for {
		line, err := readLine(stream)
		if err != nil {
			return err
		}
		heard()
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case field == "id":
			e.id = value
		case field == "event":
			e.name = value
		case field == "data":
			e.data = value
		case line == "" && e.name != "":
			if over, err := take(e); over {
				return err
			}
			e = sent{}
		}
	}
}

// event takes one event, and reports whether it was the last one.
func (o *operation) event(name, data string) (over bool, err error) {
	switch name {
	case "progress":
		o.progress(json.RawMessage(data))
		return false, nil
	case "result":
		o.result = json.RawMessage(data)
		return true, nil
	case "error":
		var e mgmt.ProblemError
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.Code == "" {
			return true, missing("error")
		}
		return true, told(e)
	default:
		return false, nil // of a newer director
	}
}

// readLine reads a line without its end.
func readLine(stream *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := stream.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > eventLimit:
			return "", wire.Errorf(wire.CodeProtocol, "an event of the director's answer has more than %d bytes", eventLimit)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return "", errNoResult
		case err != nil:
			return "", err
		}
		return strings.TrimRight(string(line), "\r\n"), nil
	}
}

// giveUp tells the director that nobody wants the request any more. If that cannot be sent the director notices later.
func (o *operation) giveUp(ctx context.Context) {
	if o.location == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if resp, err := o.client.send(ctx, http.MethodDelete, o.location, nil, nil); err == nil {
		_ = resp.Body.Close() // what it says does not matter
	}
}
