// Package door has what the doors have in common by which clients come in.
package door

import (
	"time"

	"github.com/connswap/connswap/services/director/internal/session"
)

// Connection is a client's connection as it is shown to people and programs. Over HTTP each request has one.
type Connection struct {
	Number       uint64             `json:"-"` // of all connections that the director has accepted; rising
	ConnectionID string             `json:"connection_id"`
	Protocol     string             `json:"protocol"`           // connswap, or HTTP/1.1, HTTP/2.0 or HTTP/3.0
	ODCID        string             `json:"odcid"`              // of the QUIC connection; empty while the client is lost, and over HTTP
	Exporter     string             `json:"exporter,omitempty"` // for operators only: a secret of both ends
	ExporterHash string             `json:"exporter_sha256"`
	Client       string             `json:"client"`
	Address      string             `json:"address"` // empty while the client is lost
	Since        time.Time          `json:"since"`
	Streams      []session.Snapshot `json:"streams"`
}
