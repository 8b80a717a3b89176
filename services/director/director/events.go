package director

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/connswap/connswap/services/director/internal/event"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire"
)

const (
	// eventsPing is how often somebody who follows events hears that there are none.
	eventsPing = 2 * time.Second
	// followersMost is how many may follow events at once.
	followersMost = 32
)

// followEvents answers with events as they happen, or from the one after Last-Event-ID on, until the asker leaves.
func (d *Director) followEvents(w http.ResponseWriter, r *http.Request) {
	wants, after, err := d.eventsWanted(r)
	if err != nil {
		mgmt.Refuse(w, err)
		return
	}
	if d.followers.Add(1) > followersMost {
		d.followers.Add(-1)
		mgmt.Refuse(w, wire.Errorf(wire.CodeLimit, "%d others follow events already", followersMost))
		return
	}
	defer d.followers.Add(-1)
	out, err := mgmt.StartEvents(w, "events of "+d.cfg.ID)
	for events := d.events.Subscribe(after, wants); err == nil; {
		ctx, cancel := context.WithTimeout(r.Context(), eventsPing)
		e, late := events.Next(ctx)
		cancel()
		switch {
		case r.Context().Err() != nil:
			return
		case late != nil:
			err = out.Ping()
		default:
			text, _ := json.Marshal(e) // of numbers and texts: cannot fail
			err = out.Send(e.ID, string(e.Kind()), text)
		}
	}
}

// eventsWanted reads which events somebody wants, and after which one.
func (d *Director) eventsWanted(r *http.Request) (wants func(event.Event) bool, after uint64, err error) {
	after = d.events.Last()
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		if after, err = strconv.ParseUint(last, 10, 64); err != nil {
			return nil, 0, wire.Errorf(wire.CodeInvalid, "Last-Event-ID is %.40q; give the id of an event, or 0", last)
		}
	}
	query, err := mgmt.Query(r, "kind", "connection_id", "stream_id", "worker")
	if err != nil {
		return nil, 0, err
	}
	for _, kind := range query["kind"] {
		if !slices.Contains(event.Kinds, event.Kind(kind)) {
			return nil, 0, wire.Errorf(wire.CodeInvalid, "there is no kind %.40q; there are: %s", kind, joined(event.Kinds))
		}
	}
	filter := event.Filter{Kinds: query["kind"], ConnectionID: query.Get("connection_id"), Worker: query.Get("worker")}
	if text := query.Get("stream_id"); text != "" {
		if filter.StreamID, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, 0, wire.Errorf(wire.CodeInvalid, "stream_id is %.40q; give a number", text)
		}
	}
	return filter.Wants, after, nil
}

func joined(kinds []event.Kind) string {
	all := make([]string, len(kinds))
	for i, kind := range kinds {
		all[i] = string(kind)
	}
	return strings.Join(all, ", ")
}
