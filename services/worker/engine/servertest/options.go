package servertest

import "time"

// Kind is whose behaviour a server has.
type Kind string

// Kinds of servers, by the names that configurations use.
const (
	VLLM     Kind = "vllm"
	SGLang   Kind = "sglang"
	LlamaCPP Kind = "llamacpp"
	Ollama   Kind = "ollama"
	OpenAI   Kind = "openai"
)

// Sampler is what the random numbers of a request with a seed depend on.
type Sampler uint8

// Samplers.
const (
	UsualSampler  Sampler = iota // as the kind has it: PositionKeyed for vLLM and SGLang, StateKeyed for the others
	PositionKeyed                // on the seed and the place in the whole sequence: continuations by ids are exact
	StateKeyed                   // on the seed and the number of tokens that this request has made
)

// Options are how a server behaves. The zero value is a fast one that gives away all that its kind can.
type Options struct {
	Model       string // its name; by default one as the kind has it
	Weights     string // what its texts come from; servers with equal weights make equal texts
	Fingerprint string // system_fingerprint, digest or build, as the kind has it; by default made of kind, version and weights
	Version     string // of the server; by default a recent one

	Sampler        Sampler
	Greedy         bool // temperature 0 where the request has none; otherwise 1
	BatchDependent bool // texts are others in places while more than one request runs
	NoTokenIDs     bool // never gives out ids, nor takes them as prompts (400), as older versions
	NoPrefill      bool // does not continue the last message of an assistant: 400, as llama.cpp with --no-prefill-assistant

	TokenInterval time.Duration // between two tokens of a request
	Prefill       time.Duration // before the first token
	PrefillToken  time.Duration // before the first token as well, for each token of the prompt
	Capacity      int           // requests that generate at once, all others wait; 0 for no limit
	ContextLength int           // tokens of prompt and answer; 0 for 32768
	Length        int           // tokens of an answer where the prompt does not say, about; 0 for 48
	Ping          time.Duration // between two comments of a stream while nothing else comes (llama.cpp); 0 for 1 s, negative for none

	APIKey  string // that requests must carry; empty for none
	Loading bool   // begins by loading its model: see Server.SetLoading
	Random  uint64 // where ids, and seeds of requests without one, are drawn from; 0 for others at each run
}
