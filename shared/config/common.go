// Package config holds every environment variable of every role: its name, default, unit and meaning, once.
// The tables of --help and docs/CONFIGURATION.md are generated from these structs.
package config

import "time"

// Prefix starts the name of every variable.
const Prefix = "CONNECTION_SWAP"

// Common is what all roles understand.
type Common struct {
	LogLevel  string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat string `envconfig:"LOG_FORMAT" default:"console" desc:"console for people, json for machines"`
	TLSDir    string `envconfig:"TLS_DIR" default:".dev/certs" desc:"directory with ca.pem and the role's own certificate and key (director.pem, director-key.pem …)"`
}

// Peer is what director and worker have in common, and mostly have to agree on.
type Peer struct {
	HeartbeatInterval time.Duration `envconfig:"HEARTBEAT_INTERVAL" default:"5s" desc:"how often a worker reports its load to a director"`
	HeartbeatTimeout  time.Duration `envconfig:"HEARTBEAT_TIMEOUT" default:"3s" desc:"how long a heartbeat may stay unanswered before the worker registers again, and how late it may be before the director forgets the worker"`
	MaxStateBytes     int           `envconfig:"MAX_STATE_BYTES" default:"67108864" desc:"largest engine state that is moved or kept as a checkpoint, in bytes"`
	TransferRate      int           `envconfig:"TRANSFER_RATE" default:"268435456" desc:"bytes of engine state that this process sends per second at most, all transfers together"`
	PlainStatus       bool          `envconfig:"MGMT_PLAIN_STATUS" default:"false" desc:"true: whoever reaches the MGMT port may read status over HTTP, without TLS or a certificate; health is always open to all"`
	PacketLoss        float64       `envconfig:"PACKET_LOSS" default:"0" desc:"for tests: fraction of this process's UDP packets that vanish, each way, 0 to 0.9"`
}
