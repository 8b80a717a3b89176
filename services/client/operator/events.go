package operator

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/connswap/connswap/shared/wire"
)

// Event is something that happened at a director.
type Event struct {
	ID   uint64    `json:"id"` // 1, 2, 3 … since the director's start
	Time time.Time `json:"time"`
	Kind string    `json:"kind"` // such as stream.moved; docs/OPERATIONS.md has them all

	// Whom it is about; empty where nobody.
	ConnectionID string `json:"connection_id"`
	StreamID     uint64 `json:"stream_id"`
	Worker       string `json:"worker"`

	Raw json.RawMessage `json:"-"` // all that there is to say, as the director sent it
}

// EventFilter chooses among events. The zero value wants all that happen from now on.
type EventFilter struct {
	Kinds        []string // none for all
	ConnectionID string
	StreamID     uint64
	Worker       string
	After        *uint64 // begin behind the event of that id, with those that are still kept; nil for now
}

// query is the filter in the director's words.
func (f EventFilter) query() string {
	q := url.Values{"kind": f.Kinds}
	for name, value := range map[string]string{"connection_id": f.ConnectionID, "worker": f.Worker} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.StreamID != 0 {
		q.Set("stream_id", strconv.FormatUint(f.StreamID, 10))
	}
	if len(q.Encode()) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// Events calls take with each event that the filter chooses, in the order of their ids, until ctx ends, which is the error. It is
// called by this goroutine; one that takes long misses events, of which an event of kind events.missed tells. After a lost connection, also to a
// director that was started again, Events goes on with another one; where there is none for five seconds the error is of CodeLost.
func (c *Client) Events(ctx context.Context, filter EventFilter, take func(Event)) error {
	ctx, end := c.begin(ctx)
	defer end()
	last := ""
	if filter.After != nil {
		last = strconv.FormatUint(*filter.After, 10)
	}
	open := func(ctx context.Context) (*http.Response, error) {
		header := http.Header{"Accept": {"text/event-stream"}}
		if last != "" {
			header.Set("Last-Event-ID", last)
		}
		return c.send(ctx, http.MethodGet, "/v1/events"+filter.query(), nil, header)
	}
	err := follow(ctx, open, func(s sent) (over bool, err error) {
		e := Event{Raw: json.RawMessage(s.data)}
		if err := decode(e.Raw, "event", &e); err != nil {
			return true, err
		}
		if e.Kind == "" || e.ID == 0 {
			return true, missing("kind and id of an event")
		}
		last = s.id
		take(e)
		return false, nil
	})
	if errors.Is(err, errNoResult) {
		err = wire.Errorf(wire.CodeLost, "no connection: the director has ended it")
	}
	return explain(ctx, err)
}
