package container

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"
)

// workerStatusLine is a worker as the director shows it.
type workerStatusLine struct {
	Worker    string `json:"worker"`
	Instance  string `json:"instance"`
	UserAddr  string `json:"user_addr"`
	Connected bool   `json:"connected"`
	Available bool   `json:"available"`
	Draining  bool   `json:"draining"`
	Sessions  int    `json:"sessions"`
	Version   uint32 `json:"version"`
	Build     string `json:"build"`
}

// connectionStatus is a connection as the director shows it.
type connectionStatus struct {
	ConnectionID string         `json:"connection_id"`
	ODCID        string         `json:"odcid"`
	Exporter     string         `json:"exporter"` // for operators
	ExporterHash string         `json:"exporter_sha256"`
	Address      string         `json:"address"`
	Streams      []streamStatus `json:"streams"`
}

type streamStatus struct {
	StreamID uint64 `json:"stream_id"`
	State    string `json:"state"`
	Worker   string `json:"worker"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Swaps    int    `json:"swaps"`
}

// swapStatus is a swap as the director shows it.
type swapStatus struct {
	ConnectionID string             `json:"connection_id"`
	StreamID     uint64             `json:"stream_id"`
	Kind         string             `json:"kind"`
	Cause        string             `json:"cause"`
	From         string             `json:"from_worker"`
	To           string             `json:"to_worker"`
	Epoch        uint64             `json:"epoch"`
	Cut          uint64             `json:"cut_sequence"`
	State        string             `json:"state"`
	Reason       string             `json:"reason"`
	StateMS      map[string]float64 `json:"state_ms"`
}

// workerStatusPage is what a worker says of itself.
type workerStatusPage struct {
	Available bool `json:"available"`
	Sessions  []struct {
		ConnectionID string `json:"connection_id"`
	} `json:"sessions"`
	Tokens          uint64 `json:"tokens"`
	Cancels         uint64 `json:"cancels"`
	MigrationTokens struct {
		Accepted uint64            `json:"accepted"`
		Refused  map[string]uint64 `json:"refused"`
	} `json:"migration_tokens"`
}

func (c *cluster) workerStatus(t *testing.T, name string) workerStatusPage {
	t.Helper()
	addr, err := c.workers[name].published(t.Context(), workerStatus)
	var page workerStatusPage
	if err == nil {
		err = fetch(t.Context(), addr, "/v1/status", &page)
	}
	if err != nil {
		t.Fatalf("status of %s: %v", name, err)
	}
	return page
}

// witness looks at a director all the time, and notes what it shows of each connection.
type witness struct {
	addr string // of the director's status pages

	mu       sync.Mutex
	sighted  map[string]*sighting // by connection
	problems []error
}

// sighting is what was seen of one connection. It is a value that is replaced, never changed.
type sighting struct {
	connectionStatus                           // as it was last
	epochs           map[uint64]map[uint64]int // how often each stream was seen streaming in each epoch
}

// watch looks until ctx ends. A director that does not answer is paused, or not there yet.
func (w *witness) watch(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if all, err := w.connections(ctx); err == nil {
			w.mu.Lock()
			for _, now := range all {
				w.note(now)
			}
			w.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// note adds a look at a connection. w.mu is held.
func (w *witness) note(now connectionStatus) {
	if w.sighted == nil {
		w.sighted = make(map[string]*sighting)
	}
	s := &sighting{connectionStatus: now, epochs: make(map[uint64]map[uint64]int)}
	if old := w.sighted[now.ConnectionID]; old != nil {
		for stream, epochs := range old.epochs {
			s.epochs[stream] = maps.Clone(epochs)
		}
		if err := follows(old.connectionStatus, now); err != nil {
			w.problems = append(w.problems, fmt.Errorf("%s at the director: %w", now.ConnectionID, err))
		}
	}
	for _, stream := range now.Streams {
		if s.epochs[stream.StreamID] == nil {
			s.epochs[stream.StreamID] = make(map[uint64]int)
		}
		if stream.State == "streaming" {
			s.epochs[stream.StreamID][stream.Epoch]++
		}
	}
	w.sighted[now.ConnectionID] = s
}

// follows checks that a connection is still what it was, and that its streams only went forward.
func follows(old, now connectionStatus) error {
	if now.ODCID != old.ODCID || now.ExporterHash != old.ExporterHash || now.Address != old.Address {
		return fmt.Errorf("it changed from %+v to %+v", old, now)
	}
	before := make(map[uint64]streamStatus)
	for _, s := range old.Streams {
		before[s.StreamID] = s
	}
	for _, s := range now.Streams {
		was := before[s.StreamID]
		if s.Epoch < was.Epoch || s.Sequence < was.Sequence || s.Swaps < was.Swaps {
			return fmt.Errorf("its stream went back from %+v to %+v", was, s)
		}
	}
	return nil
}

// of returns what was seen of a connection.
func (w *witness) of(connection string) (sighting, []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sighted[connection]; s != nil {
		return *s, w.problems
	}
	return sighting{}, append(w.problems, fmt.Errorf("the director never showed %s", connection))
}

func (w *witness) connections(ctx context.Context) ([]connectionStatus, error) {
	var page struct {
		Connections []connectionStatus `json:"connections"`
	}
	err := fetch(ctx, w.addr, "/v1/connections", &page)
	return page.Connections, err
}

// workers returns the registered workers by their labels.
func (w *witness) workers(ctx context.Context) (map[string]workerStatusLine, error) {
	var page struct {
		Workers []workerStatusLine `json:"workers"`
	}
	err := fetch(ctx, w.addr, "/v1/workers", &page)
	all := make(map[string]workerStatusLine)
	for _, line := range page.Workers {
		all[line.Worker] = line
	}
	return all, err
}

// stream returns a stream as it is now, or nil if there is none.
func (w *witness) stream(ctx context.Context, connection string, stream uint64) (*streamStatus, error) {
	all, err := w.connections(ctx)
	for _, c := range all {
		for _, s := range c.Streams {
			if c.ConnectionID == connection && s.StreamID == stream {
				return &s, err
			}
		}
	}
	return nil, err
}

// swaps returns the swaps of a stream that were completed, and all of them.
func (w *witness) swaps(ctx context.Context, connection string, stream uint64) (completed, all []swapStatus, err error) {
	var page struct {
		Swaps []swapStatus `json:"swaps"`
	}
	err = fetch(ctx, w.addr, "/v1/swaps", &page)
	for _, s := range page.Swaps {
		if s.ConnectionID == connection && s.StreamID == stream {
			all = append(all, s)
			if s.State == "Completed" {
				completed = append(completed, s)
			}
		}
	}
	return completed, all, err
}
