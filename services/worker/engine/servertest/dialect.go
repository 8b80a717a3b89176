package servertest

import "net/http"

// dialect is what kinds of servers have for themselves. That of plain servers of the OpenAI API is what the others begin from.
type dialect interface {
	defaults(o *Options)
	routes(s *Server, mux *http.ServeMux) // beside those of the OpenAI API
	models(o Options) object
	open(path string) bool          // without a key
	servesLoading(path string) bool // while the model is loading

	newID(f form, r *random) string
	newCallID(r *random) string
	check(s *Server, j *job) *failure
	prefills(b *body) bool // continues a last message of an assistant
	strict() bool          // refuses what would go beyond the context, rather than end there

	failure(f *failure) any
	streamFailure(f *failure) any
	doneAfterFailure() bool
	lastWords(j *job) object // before a silent end; nil for none

	withholds(j *job, p *piece) bool // does not put it out, but with the next one
	head(j *job, text int) []object  // before the first piece of a text
	events(j *job, p *piece) []object
	tail(j *job, used usage) []object
	done(j *job) bool // sends [DONE]
	whole(j *job, texts []wholeText, used usage) object
}

func dialectOf(kind Kind) dialect {
	switch kind {
	case VLLM:
		return vllm{}
	case SGLang:
		return sglang{}
	case LlamaCPP:
		return llamaCPP{}
	case Ollama:
		return ollama{}
	case OpenAI:
		return openAI{}
	default:
		return openAI{}
	}
}

// withDefaults fills in what all kinds have alike.
func withDefaults(kind Kind, o Options) Options {
	if o.Weights == "" {
		o.Weights = "weights-1"
	}
	if o.Sampler == UsualSampler {
		o.Sampler = StateKeyed
		if kind == VLLM || kind == SGLang {
			o.Sampler = PositionKeyed
		}
	}
	if o.Fingerprint == "" {
		o.Fingerprint = fingerprint(string(kind), o.Version, o.Weights)
	}
	if o.ContextLength == 0 {
		o.ContextLength = 32768
	}
	if o.Length == 0 {
		o.Length = 48
	}
	return o
}
