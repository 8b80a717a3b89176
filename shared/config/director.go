package config

import "time"

// Director configures a director.
type Director struct {
	Common
	Peer

	UserAddr   string   `envconfig:"DIRECTOR_USER_ADDR" default:":61000" desc:"address to serve clients on: connswap and HTTP/3 (UDP), HTTP/1.1 and HTTP/2 (TCP)"`
	Origins    []string `envconfig:"DIRECTOR_HTTP_ORIGINS" default:"" desc:"web pages that may use the OpenAI API from a browser (CORS), by origin such as https://example.org, comma-separated; * for all"`
	HTTP       string   `envconfig:"DIRECTOR_HTTP" default:"auto" desc:"the OpenAI API on DIRECTOR_USER_ADDR: tls with the director's certificate, plain for HTTP in the clear on TCP, off; auto is plain on a loopback address, tls elsewhere"`
	MgmtAddr   string   `envconfig:"DIRECTOR_MGMT_ADDR" default:":61001" desc:"address to serve workers (UDP) and operators (TCP, HTTP) on"`
	Tokens     string   `envconfig:"DIRECTOR_OPERATOR_TOKENS_FILE" default:"" desc:"file with operators' bearer tokens for HTTPS, one a line, 16 characters or more; read again when it changes; empty: certificates only"`
	KeysFile   string   `envconfig:"DIRECTOR_KEYS_FILE" default:"" desc:"file with the keys of clients, by SHA-256, with what each may use; read again when it changes; empty: clients need none"`
	ConfigFile string   `envconfig:"DIRECTOR_CONFIG_FILE" default:"" desc:"file in YAML with keys, other names, continuity and limits of models, and limits of the director; read again when it changes; empty: none"`
	ID         string   `envconfig:"DIRECTOR_ID" default:"" desc:"name of this director in logs and replies; the host name if empty"`

	MaxConnections     int           `envconfig:"DIRECTOR_MAX_CONNECTIONS" default:"10000" desc:"client connections at once; the last eighth is for who has few, the rest for anybody; further ones are refused"`
	ClientAuth         string        `envconfig:"DIRECTOR_CLIENT_AUTH" default:"none" desc:"what clients have to prove: none, or certificate for one of role client"`
	ClientNames        []string      `envconfig:"DIRECTOR_CLIENT_NAMES" default:"" desc:"clients that may come, by the name in their certificates (alice for alice.client.connswap), comma-separated; empty for all that have a certificate"`
	MaxLabels          int           `envconfig:"DIRECTOR_MAX_LABELS_PER_CERTIFICATE" default:"1024" desc:"workers registered with one certificate that names none of them; one that does (worker-a.worker.connswap) is good for that label only"`
	MaxStreams         int           `envconfig:"DIRECTOR_MAX_STREAMS" default:"1000" desc:"streams at once on one client connection"`
	MaxSessions        int           `envconfig:"DIRECTOR_MAX_SESSIONS" default:"10000" desc:"streams at once, of all clients together; divided as DIRECTOR_MAX_CONNECTIONS are"`
	MaxBytes           int           `envconfig:"DIRECTOR_MAX_BYTES" default:"0" desc:"memory that clients may make the director hold (connections, prompts, text), in bytes; 0 for half of what the process may have, by GOMEMLIMIT or its container, or a quarter of the machine's"`
	MaxPromptBytes     int           `envconfig:"DIRECTOR_MAX_PROMPT_BYTES" default:"65536" desc:"length of a prompt, in bytes"`
	MaxBodyBytes       int           `envconfig:"DIRECTOR_MAX_BODY_BYTES" default:"1048576" desc:"length of the body of an HTTP request, in bytes"`
	MaxTokens          int           `envconfig:"DIRECTOR_MAX_TOKENS" default:"100000" desc:"tokens of one stream; what a request may ask for at most"`
	MaxSessionBytes    int           `envconfig:"DIRECTOR_MAX_SESSION_BYTES" default:"1048576" desc:"text of one stream, in bytes: the journal's bound; at it the stream ends with finish reason length"`
	DefaultModel       string        `envconfig:"DIRECTOR_DEFAULT_MODEL" default:"" desc:"model of requests that name none; empty for the one that the most workers have"`
	WindowTokens       int           `envconfig:"DIRECTOR_WINDOW_TOKENS" default:"256" desc:"tokens a worker may send ahead of what the client has taken"`
	WorkerWait         time.Duration `envconfig:"DIRECTOR_WORKER_WAIT" default:"60s" desc:"how long a stream waits for an available worker before it ends in an error"`
	ClientStall        time.Duration `envconfig:"DIRECTOR_CLIENT_STALL" default:"5m" desc:"how long a client may read nothing from a stream that has tokens for it"`
	ClientIdleTimeout  time.Duration `envconfig:"DIRECTOR_CLIENT_IDLE_TIMEOUT" default:"6s" desc:"a client from which no packet came for this long, while it has a stream, is lost; well above its CLIENT_KEEP_ALIVE"`
	ResumeWait         time.Duration `envconfig:"DIRECTOR_RESUME_WAIT" default:"60s" desc:"how long the streams of a client that is lost wait for it to come back, and go on as far as DIRECTOR_WINDOW_TOKENS allows; 0 for not at all"`
	DrainTimeout       time.Duration `envconfig:"DIRECTOR_DRAIN_TIMEOUT" default:"30s" desc:"how long a director that is asked to stop (SIGTERM) lets its streams run on; those that are left are told, as all are by a second signal"`
	MaxSwapsPerMinute  int           `envconfig:"DIRECTOR_MAX_SWAPS_PER_MINUTE" default:"30" desc:"swaps of one stream within a minute; beyond it the stream ends in an error"`
	MaxConcurrentSwaps int           `envconfig:"DIRECTOR_MAX_CONCURRENT_SWAPS" default:"256" desc:"failovers under way at once, and as many planned swaps; the rest wait in order of their age"`
	Routing            string        `envconfig:"DIRECTOR_ROUTING" default:"round_robin" desc:"how one of several workers with room is chosen: round_robin in turn, least_loaded the emptiest by its capacity, p2c of two at random the better one by load, time between tokens and failures"`
	MaxWorkerDeaths    int           `envconfig:"DIRECTOR_MAX_WORKER_DEATHS" default:"3" desc:"workers that may die in a row under one stream before it made progress; then the stream ends in an error"`
	Confirm            string        `envconfig:"DIRECTOR_CONFIRM" default:"auto" desc:"planned swaps: auto confirms them by itself, operator waits for client confirm or client veto"`
	ConfirmTimeout     time.Duration `envconfig:"DIRECTOR_CONFIRM_TIMEOUT" default:"5m" desc:"how long a planned swap waits for the operator before it is given up"`
	MaxSwapsPerTarget  int           `envconfig:"DIRECTOR_MAX_SWAPS_PER_TARGET" default:"128" desc:"swaps under way to one worker at once; failovers do not wait for planned ones"`
	MaxTransfers       int           `envconfig:"DIRECTOR_MAX_CONCURRENT_TRANSFERS" default:"16" desc:"engine states on their way at once, of one drain or rebalancing"`
	TransferTimeout    time.Duration `envconfig:"DIRECTOR_TRANSFER_TIMEOUT" default:"60s" desc:"how long an engine's state may take to be captured, and again to be transferred, before a planned swap is given up"`
	RebalancePace      int           `envconfig:"DIRECTOR_REBALANCE_PACE" default:"50" desc:"swaps that client rebalance begins per second"`
	TokenTTL           time.Duration `envconfig:"DIRECTOR_TOKEN_TTL" default:"30s" desc:"how long a migration token is good, at most 30s"`
	TokenRate          int           `envconfig:"DIRECTOR_TOKEN_RATE" default:"1000" desc:"migration tokens per second for one worker; further swaps to it wait"`
	CheckpointInterval time.Duration `envconfig:"DIRECTOR_CHECKPOINT_INTERVAL" default:"5s" desc:"how often at most the state of a stateful engine is kept for failovers; 0 for never: then the whole stream is computed again"`
	CheckpointPlace    string        `envconfig:"DIRECTOR_CHECKPOINT_PLACE" default:"director" desc:"where it is kept: director, or peer (another worker)"`
	MaxCheckpointBytes int           `envconfig:"DIRECTOR_MAX_CHECKPOINT_BYTES" default:"1073741824" desc:"checkpoints that the director keeps, compressed, in bytes, but at most a quarter of what the process may have; beyond it there are no new ones"`
	SessionRetention   time.Duration `envconfig:"DIRECTOR_SESSION_RETENTION" default:"1m" desc:"how long a session that has ended is still listed, and a response can be asked for"`
	HTTPHeartbeat      time.Duration `envconfig:"DIRECTOR_HTTP_HEARTBEAT" default:"10s" desc:"how long a client of an HTTP stream is told nothing while it waits; then it gets a comment"`
	LinkKeepAlive      time.Duration `envconfig:"DIRECTOR_LINK_KEEP_ALIVE" default:"100ms" desc:"how often a worker with streams has to report progress, and is asked for a sign of life while it is silent; one without streams has up to fifty times as long"`
	LinkIdleTimeout    time.Duration `envconfig:"DIRECTOR_LINK_IDLE_TIMEOUT" default:"300ms" desc:"a worker from which no packet came for this long is lost"`
	ProgressTimeout    time.Duration `envconfig:"DIRECTOR_PROGRESS_TIMEOUT" default:"500ms" desc:"a worker that answers but reported no progress for this long is lost"`
	AttachTimeout      time.Duration `envconfig:"DIRECTOR_ATTACH_TIMEOUT" default:"2s" desc:"how long a worker may take to accept a stream"`
	FirstTokenTimeout  time.Duration `envconfig:"DIRECTOR_FIRST_TOKEN_TIMEOUT" default:"30s" desc:"how long a worker may take to its first token"`
	TokenTimeoutMin    time.Duration `envconfig:"DIRECTOR_TOKEN_TIMEOUT_MIN" default:"1s" desc:"the shortest silence that can count as a stuck stream; above it the stream's own rhythm decides"`
	TokenTimeoutFactor float64       `envconfig:"DIRECTOR_TOKEN_TIMEOUT_FACTOR" default:"4" desc:"a stream is stuck after this many times (mean + deviation) of its time between tokens"`
}
