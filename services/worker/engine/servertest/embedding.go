package servertest

import (
	"encoding/json"
	"net/http"
)

// embeddings answers with a vector for each input, a function of the weights and of the input.
func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Model string          `json:"model"`
		Input json.RawMessage `json:"input"`
	}
	if err := json.Unmarshal(rawBody(r), &asked); err != nil {
		s.refuse(w, badRequest(err.Error()))
		return
	}
	inputs, _, err := parsePrompts(asked.Input)
	if err != nil || len(inputs) == 0 {
		s.refuse(w, badRequest("input must be a text, a list of texts, or ids of tokens"))
		return
	}
	data, tokens := make([]object, len(inputs)), 0
	for i, input := range inputs {
		data[i] = object{"object": "embedding", "index": i, "embedding": vector(s.weights(), input)}
		tokens += len(input)
	}
	answerJSON(w, http.StatusOK, object{
		"object": "list", "model": asked.Model, "data": data, "usage": object{"prompt_tokens": tokens, "total_tokens": tokens},
	})
}

// dimensions is the length of a vector.
const dimensions = 8

func vector(weights string, input []int) []float64 {
	hash := newSequence(weights, 1, input, false).hash
	v := make([]float64, dimensions)
	for i := range v {
		v[i] = float64(mix(hash, uint64(i))>>11)/(1<<52) - 1
	}
	return v
}
