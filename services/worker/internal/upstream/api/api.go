package api

import (
	"context"
	"encoding/json"
	"net"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/shared/wire"
)

// Kind is which server it is.
type Kind string

// Kinds.
const (
	Auto     Kind = "auto" // found out by asking
	VLLM     Kind = "vllm"
	SGLang   Kind = "sglang"
	LlamaCPP Kind = "llamacpp"
	Ollama   Kind = "ollama"
	OpenAI   Kind = "openai" // any other with OpenAI's API
)

// Config says where a server is, and how long it may take. No proxy is used, whatever the environment says, and no redirect is
// followed.
type Config struct {
	URL  string                 // http://host:port, https too; with a path if its API is below one, with or without /v1
	Kind Kind                   // Auto or one of the others
	Key  func() (string, error) // for Authorization: Bearer, asked for with each request; nil for none
	// Dial connects; nil for the operating system.
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	Timeouts Timeouts
}

// Timeouts are how long a server may take. Zero means no limit.
type Timeouts struct {
	Connect time.Duration // for TCP and TLS
	// Headers is for the head of an answer after the request is sent. Where that comes with the first chunk (of any kind of server but
	// vLLM) or with the whole answer, First counts instead if it is longer.
	Headers time.Duration
	First   time.Duration // for the first chunk of a stream, which takes as long as the prompt is
	Silence time.Duration // between two chunks of a stream; a server's pings are none
}

// Identity is what a server says of itself.
type Identity struct {
	Kind    Kind
	Version string
	Models  []Model
}

// Model is one model of a server.
type Model struct {
	Name        string // as the server has it
	Fingerprint string // equal ones make the same text, as far as a server can say: kind, version, model, and what it runs with
	Context     int    // tokens of prompt and answer together; 0 where it does not say
}

// Features are what a kind of server can be asked for, in a version. That it does these well has to be tried.
type Features struct {
	IDs    map[string]bool // by API of a Call: the stream tells the ids of its tokens
	Prompt bool            // it takes a prompt as ids: Call.IDs; and Tokenize answers
	Likely bool            // it says in one go whether a text is the likeliest: Likely
	Text   map[string]bool // by API: it continues an answer that has begun as text: Call.Text
}

// Health is how a server is.
type Health struct {
	Starting bool   // it loads a model, and will be there
	Reason   string // why it is not ready; empty if it is
}

// Load is what a server has to do, of all its clients.
type Load struct {
	Known   bool    // it says so at all
	Running int     // requests that it generates for
	Waiting int     // requests that wait
	Cache   float64 // fraction of its key-value cache that is used, 0 to 1; 0 where it does not say
}

// Call is a request for text.
type Call struct {
	Model     string // as the server has it
	API       string // wire.APIChat or wire.APICompletions: the form of Body, and of the answer
	Body      []byte // as it came, in JSON; nil for a Prompt alone. It is not changed
	Prompt    string
	MaxTokens int    // that the answer may have; at least 1
	Seed      uint64 // for a request that names none
	Choices   int
	Stop      []string
	Trace     string // traceparent
	// Unlimited says that nobody has asked for MaxTokens, and that the model may have less room: a kind of server that refuses what goes
	// beyond it, and does not tell how much it has, decides by itself how long the answer may be.
	Unlimited bool

	// Where the answer has begun. At most one of them is set, and MaxTokens is what remains then.
	// IDs are those of the prompt and of the answer so far; the rest comes as of APICompletions, whatever the API. Where they end within a
	// character of several tokens, servers put something else in its place: begin before it, and drop what is known.
	IDs  []uint32
	Text []byte // of the answer so far
	Done int    // tokens that the answer has so far, by which min_tokens is lower; 0 for what Body's limit is above MaxTokens
}

// Delta is a piece of an answer, of one choice and channel. Its memory stays valid.
type Delta struct {
	Choice   int
	Channel  engine.Channel
	Text     []byte     // of a tool call: its name in the first piece, pieces of its arguments after that
	Call     *wire.Call // of a tool call: which one
	IDs      []uint32   // of its tokens, where the server tells them
	Tokens   int        // how many it stands for: len(IDs) where these are told, else 1; 0 for a piece that stands for none
	Logprobs json.RawMessage
}

// Fault is what went wrong at a server.
type Fault string

// Faults.
const (
	Rejected Fault = "rejected" // the request is at fault: its caller is told
	Busy     Fault = "busy"     // 429, or a queue that is full
	Gone     Fault = "gone"     // refused, reset before an answer, 502, 503, 504, still loading
	Failed   Fault = "failed"   // 500 and the like, an error in a stream
	Broken   Fault = "broken"   // the stream was cut, ended without a reason to finish, or cannot be read
	Silent   Fault = "silent"   // nothing came for too long
	Denied   Fault = "denied"   // 401, 403, 404: the worker's configuration does not fit the server
)

// Error is why a server did not answer, or not to the end.
type Error struct {
	Fault    Fault
	Status   int           // of HTTP, or as an error in a stream says; 0 for none
	Message  string        // for people
	Document []byte        // the server's, in JSON
	After    time.Duration // when to try again, if the server says so
	// Complete is how the text ended, where that was said, and the answer broke off before its usage was told: the one here is guessed.
	Complete *engine.Finish
	Err      error // below it, or nil
}

func (e *Error) Error() string { return string(e.Fault) + ": " + e.Message }

func (e *Error) Unwrap() error { return e.Err }
