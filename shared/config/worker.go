package config

import "time"

// Worker configures a worker.
type Worker struct {
	Common
	Peer
	Server

	UserAddr          string   `envconfig:"WORKER_USER_ADDR" default:":62001" desc:"address to serve directors on (UDP, and TCP for the tether)"`
	MgmtAddr          string   `envconfig:"WORKER_MGMT_ADDR" default:":63001" desc:"address for health and status (UDP, and TCP for HTTP)"`
	AdvertiseUserAddr string   `envconfig:"WORKER_ADVERTISE_USER_ADDR" default:"" desc:"where directors reach the USER port; empty: the host the registration comes from, and the port of WORKER_USER_ADDR"`
	AdvertiseMgmtAddr string   `envconfig:"WORKER_ADVERTISE_MGMT_ADDR" default:"" desc:"where others reach the MGMT port; empty: as above"`
	Directors         []string `envconfig:"DIRECTOR_MGMT_ADDR" default:"localhost:61001" desc:"directors to register at: a comma-separated list of host:port; every address of a name counts"`

	Label         string        `envconfig:"WORKER_LABEL" default:"" desc:"name of this worker, unique in the pool; the host name if empty"`
	MaxBytes      int           `envconfig:"WORKER_MAX_BYTES" default:"0" desc:"memory that directors may make the worker hold (prompts, text), in bytes; 0 for half of what the process may have, by GOMEMLIMIT or its container, or a quarter of the machine's; beyond it streams are declined"`
	Capacity      int           `envconfig:"WORKER_CAPACITY" default:"1024" desc:"streams at once"`
	Engine        string        `envconfig:"WORKER_ENGINE" default:"markov" desc:"models that it has, comma-separated; the first serves requests that name none: markov (text that reads like language), counter (token-1, token-2 …), stateful (each token depends on a state that has to move with the stream); markov=8 for no more than 8 streams of it at once. Or upstream, alone: the models of an inference server, see WORKER_UPSTREAM_URL"`
	StateBytes    int           `envconfig:"WORKER_STATE_BYTES" default:"1048576" desc:"size of a stream's state with the stateful engine, in bytes: 1024 to 67108864; the same on all workers"`
	TokenInterval time.Duration `envconfig:"WORKER_TOKEN_INTERVAL" default:"500ms" desc:"time from one token to the next; 0 as fast as it goes, as with the engine upstream in any case"`

	DrainTimeout     time.Duration `envconfig:"WORKER_DRAIN_TIMEOUT" default:"30s" desc:"how long a worker that is asked to stop (SIGTERM) waits for its streams to be moved; a second signal ends it at once"`
	MaxSnapshotBytes int           `envconfig:"WORKER_MAX_SNAPSHOT_BYTES" default:"1073741824" desc:"snapshots and checkpoints of engine state held at once, compressed, in bytes, but at most a quarter of what the process may have"`

	FailureMode     string        `envconfig:"WORKER_FAILURE_MODE" default:"none" desc:"simulated failure: none, error (says so), exit (the process dies), hang (alive, produces nothing), drop (its packets vanish) or slow (20 times slower)"`
	FailureMin      time.Duration `envconfig:"WORKER_FAILURE_MIN" default:"10s" desc:"earliest simulated failure after start or recovery"`
	FailureMax      time.Duration `envconfig:"WORKER_FAILURE_MAX" default:"25s" desc:"latest simulated failure after start or recovery"`
	FailureRecovery time.Duration `envconfig:"WORKER_RECOVERY" default:"10s" desc:"how long a simulated failure lasts"`
	FailureSeed     uint64        `envconfig:"WORKER_FAILURE_SEED" default:"0" desc:"makes the times of simulated failures repeatable, each worker (by its label) at times of its own; 0 for different ones at each start"`
}
