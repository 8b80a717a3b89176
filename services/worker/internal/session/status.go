package session

import "cmp"

// Status is one session as it is at a moment.
type Status struct {
	ID           uint64 `json:"session"` // what its director calls it
	Epoch        uint64 `json:"epoch"`
	Director     string `json:"director"`
	ConnectionID string `json:"connection_id"`
	StreamID     uint64 `json:"stream_id"`
	Sequence     uint64 `json:"sequence"`
	Credit       uint64 `json:"credit"`
	Acknowledged uint64 `json:"acknowledged"` // up to here the client has read for good
	KeptBytes    int    `json:"kept_bytes"`   // of what it has not
}

func (s Status) compare(other Status) int {
	return cmp.Or(cmp.Compare(s.ConnectionID, other.ConnectionID), cmp.Compare(s.StreamID, other.StreamID), cmp.Compare(s.Epoch, other.Epoch))
}
