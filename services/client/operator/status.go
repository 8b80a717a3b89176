package operator

import (
	"context"
	"encoding/json"
	"time"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration"
)

// Status is how things stand at one director.
type Status struct {
	Director    string             `json:"director"`
	Time        time.Time          `json:"time"` // by the director's clock
	Build       string             `json:"build"`
	Workers     []Worker           `json:"workers"`
	Waiting     int                `json:"waiting_streams"` // streams that wait for a worker
	Connections []Connection       `json:"connections"`
	Sessions    Sessions           `json:"sessions"`
	Swaps       []migration.Record `json:"swaps"`                 // under way
	ConfigFile  *File              `json:"config_file,omitempty"` // nil for none, as with the next one
	KeysFile    *File              `json:"keys_file,omitempty"`
	Certificate *identity.Expiry   `json:"certificate,omitempty"` // the director's

	Raw json.RawMessage `json:"-"` // the whole document, as the director sent it
}

// File is one of a director's configuration, which it reads again when it changes.
type File struct {
	Path   string    `json:"path"`
	Loaded time.Time `json:"loaded"`          // when what counts now was read
	Error  string    `json:"error,omitempty"` // why the file, as it is now, cannot be used
}

// Worker is a registered worker.
type Worker struct {
	Worker    string  `json:"worker"`
	Instance  string  `json:"instance"`
	UserAddr  string  `json:"user_addr"`
	MgmtAddr  string  `json:"mgmt_addr"`
	Models    []Model `json:"models"`
	Server    string  `json:"server"`      // inference server that it stands beside, for people; empty for none
	Connected bool    `json:"connected"`   // its link is up
	Cut       string  `json:"unreachable"` // why its link is not up; empty if it is
	Available bool    `json:"available"`   // it takes new streams
	Reason    string  `json:"reason"`      // why it takes none, as it says itself; empty if it does
	Draining  bool    `json:"draining"`
	Cooldown  bool    `json:"cooldown"` // it gets no streams while others have room: its attempts fail
	Sessions  int     `json:"sessions"` // by this director's count
	Capacity  int     `json:"capacity"`
	Incoming  int     `json:"incoming"` // swaps under way to it
	Version   uint32  `json:"version"`  // of the protocol
	Build     string  `json:"build"`
}

// Model is one of a worker's.
type Model struct {
	Name        string   `json:"name"`
	Fingerprint string   `json:"fingerprint"` // equal ones continue each other's streams
	Capacity    int      `json:"capacity"`    // streams at once; 0 for as many as the worker has
	Stateful    bool     `json:"stateful"`    // a state moves with its streams
	Continuity  string   `json:"continuity"`  // the best class that it promises
	Class       string   `json:"class"`       // what its worker has measured of it: exact, replayable, ids or text; empty for nothing
	APIs        []string `json:"apis"`        // that it answers beside those that generate text
}

// Connection is a client's.
type Connection struct {
	ConnectionID string    `json:"connection_id"`
	Protocol     string    `json:"protocol"` // connswap, or the version of HTTP
	ODCID        string    `json:"odcid"`
	Exporter     string    `json:"exporter"`
	Client       string    `json:"client"` // what it calls itself
	Address      string    `json:"address"`
	Since        time.Time `json:"since"`
	Streams      []Stream  `json:"streams"`
}

// Stream is one stream of a client.
type Stream struct {
	StreamID   uint64    `json:"stream_id"`
	State      string    `json:"state"` // streaming, moving, waiting; done, failed or cancelled for a while after its end
	Model      string    `json:"model"`
	Worker     string    `json:"worker"`
	Epoch      uint64    `json:"epoch"`
	Sequence   uint64    `json:"sequence"` // last token accepted
	Sent       uint64    `json:"sent"`     // last token handed to the client's connection
	Standby    string    `json:"standby"`  // worker that makes the text, too, and goes on at once where the other is lost; empty for none
	Swaps      int       `json:"swaps"`
	Continuity string    `json:"continuity"` // what its worker promises for the case that it is lost: none, text, verified or exact
	Resumes    int       `json:"resumes"`    // how often the client came back over another QUIC connection
	Started    time.Time `json:"started"`

	// Away is since when the client is lost, and may come back; nil while it is there.
	Away *time.Time `json:"away"`
}

// Sessions counts streams by their state.
type Sessions struct {
	Streaming int `json:"streaming"`
	Moving    int `json:"moving"`
	Waiting   int `json:"waiting"`
	Done      int `json:"done"`
	Failed    int `json:"failed"`
	Cancelled int `json:"cancelled"`
}

// Status asks how things stand.
func (c *Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := within(ctx, answerTimeout)
	defer cancel()
	text, err := c.get(ctx, "/v1/status")
	if err != nil {
		return Status{}, err
	}
	status := Status{Raw: text}
	if err := decode(text, "status", &status); err != nil {
		return Status{}, err
	}
	if status.Director == "" {
		return Status{}, missing("status")
	}
	return status, nil
}
