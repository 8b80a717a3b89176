package wire

import "slices"

// APIs that generate text, in the names of wirepb.Request.
const (
	APIChat        = "chat.completions"
	APICompletions = "completions"
	APIResponses   = "responses"
)

// APIs are those whose answer is one document, and that a worker's model may answer beside those that generate text.
var APIs = []string{"embeddings", "moderations", "rerank", "score", "tokenize", "detokenize"}

// IsAPI reports whether a name is that of one of APIs.
func IsAPI(name string) bool { return slices.Contains(APIs, name) }

// GeneratesText reports whether an API generates text. A request that names none is for text.
func GeneratesText(api string) bool {
	return api == "" || api == APIChat || api == APICompletions || api == APIResponses
}
