package servertest

import (
	"encoding/json"
	"net/http"
)

// detokenize answers with the text of ids, in a field of that name.
func (s *Server) detokenize(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Tokens []int `json:"tokens"`
		}
		if err := json.Unmarshal(rawBody(r), &asked); err != nil {
			s.refuse(w, badRequest(err.Error()))
			return
		}
		answerJSON(w, http.StatusOK, object{name: theVocabulary.decode(asked.Tokens)})
	}
}

// vllmTokenize answers with the ids of a prompt or of a chat.
func (s *Server) vllmTokenize(w http.ResponseWriter, r *http.Request) {
	b := &body{}
	if json.Unmarshal(rawBody(r), b) != nil || len(b.Messages) == 0 {
		s.sglangTokenize(w, r)
		return
	}
	goOn := b.goesOn()
	s.answerTokens(w, s.chatPrompt(b, goOn, !goOn && (b.AddGenerationPrompt == nil || *b.AddGenerationPrompt)))
}

// sglangTokenize answers with the ids of a prompt.
func (s *Server) sglangTokenize(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Prompt     *string `json:"prompt"`
		AddSpecial *bool   `json:"add_special_tokens"`
	}
	if json.Unmarshal(rawBody(r), &asked) != nil || asked.Prompt == nil {
		s.refuse(w, badRequest("a prompt is required"))
		return
	}
	var tokens []int
	if asked.AddSpecial == nil || *asked.AddSpecial {
		tokens = []int{tokenBegin}
	}
	s.answerTokens(w, append(tokens, theVocabulary.encode(*asked.Prompt, true)...))
}

func (s *Server) answerTokens(w http.ResponseWriter, tokens []int) {
	answerJSON(w, http.StatusOK, object{
		"count": len(tokens), "max_model_len": s.options.ContextLength, "tokens": tokens, "token_strs": nil,
	})
}

// llamaTokenize answers with the ids of a text.
func (s *Server) llamaTokenize(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Content    string `json:"content"`
		AddSpecial bool   `json:"add_special"`
		Special    *bool  `json:"parse_special"`
	}
	if err := json.Unmarshal(rawBody(r), &asked); err != nil {
		s.refuse(w, badRequest(err.Error()))
		return
	}
	tokens := []int{}
	if asked.AddSpecial {
		tokens = append(tokens, tokenBegin)
	}
	special := asked.Special == nil || *asked.Special
	answerJSON(w, http.StatusOK, object{"tokens": append(tokens, theVocabulary.encode(asked.Content, special)...)})
}
