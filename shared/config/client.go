package config

import "time"

// Operator configures the commands that act on a cluster. Flags win over variables.
type Operator struct {
	Common

	Director string `envconfig:"DIRECTOR_MGMT_ADDR" default:"localhost:61001" desc:"host:port of the director's MGMT port; of a list the first one"`
	Output   string `envconfig:"OPERATOR_OUTPUT" default:"text" desc:"text for people, json for programs"`
}

// Client configures the command-line client. Flags of the command win over variables.
type Client struct {
	Common

	Target      string        `envconfig:"DIRECTOR_TARGET" default:"localhost:61000" desc:"host:port of a director's USER port"`
	KeyFile     string        `envconfig:"CLIENT_KEY_FILE" default:"" desc:"file with the key that the director wants, alone on its line; a file, since a variable is seen by every program that this one starts, and in what container engines show; empty for no key"`
	Prompt      string        `envconfig:"CLIENT_PROMPT" default:"" desc:"prompt, if none is given as an argument"`
	MaxTokens   int           `envconfig:"CLIENT_MAX_TOKENS" default:"256" desc:"tokens to ask for; 0 for as many as the director allows"`
	Model       string        `envconfig:"CLIENT_MODEL" default:"" desc:"model by name; empty for the fleet's default"`
	Seed        uint64        `envconfig:"CLIENT_SEED" default:"1" desc:"seed of the sampler: the same prompt and seed give the same text"`
	Priority    int           `envconfig:"CLIENT_PRIORITY" default:"0" desc:"of streams that are as old as each other, the higher one is moved first when a worker is emptied; 0 to 255"`
	KeepAlive   time.Duration `envconfig:"CLIENT_KEEP_ALIVE" default:"2s" desc:"how often a silent director is pinged"`
	IdleTimeout time.Duration `envconfig:"CLIENT_IDLE_TIMEOUT" default:"6s" desc:"a director from which no packet came for this long, while a stream is open, is lost"`
	Output      string        `envconfig:"CLIENT_OUTPUT" default:"text" desc:"text for people, log for the log of every token, json for programs"`
}
