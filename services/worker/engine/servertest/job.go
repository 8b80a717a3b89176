package servertest

import (
	"fmt"
	"time"
)

// form is in whose words a request is asked and answered.
type form uint8

const (
	chatForm form = iota
	completionForm
	nativeForm // the server's own: /completion of llama.cpp, /generate of SGLang
)

// job is one request for text.
type job struct {
	form    form
	body    *body
	prompts [][]int // as ids; n texts are made for each

	sampling  sampling
	texts     int // n times the number of prompts
	limit     int // tokens of each text; negative for none but the context's
	least     int // tokens of each text, before it may end by itself
	endless   bool
	stops     []string
	logprobs  int // alternatives beside each token; negative for none
	ruled     bool
	continues bool
	random    *random

	id      string
	created int64
	model   string
	about   Options // what the server was when the request came

	faults  []Fault
	offsets []int     // of what has been put out, in each text, in bytes
	shown   []bool    // of each text: the ids of the prompt have been put out
	native  wholeText // so far, in the form of SGLang
	made    []int     // tokens of each text that have been put out
}

// newJob reads a request. The failure is nil, or why it cannot be served.
func (s *Server) newJob(form form, b *body) (*job, *failure) {
	j := &job{
		form: form, body: b, limit: -1, least: b.MinTokens, endless: b.IgnoreEOS, stops: stops(b.Stop), logprobs: b.logprobs(),
		ruled: b.ruled(), continues: b.continues(), random: s.random.branch(), created: time.Now().Unix(), about: s.about(),
	}
	j.model = j.about.Model
	if b.Model != "" {
		j.model = b.Model
	}
	j.id = s.dialect.newID(form, j.random)
	if p := b.SamplingParams; p != nil {
		j.least, j.endless, j.stops = p.MinNewTokens, p.IgnoreEOS, stops(p.Stop)
		b.Seed, b.Temperature, b.TopK, b.N, b.MaxTokens = p.Seed, p.Temperature, p.TopK, p.N, p.MaxNewTokens
	}
	for _, limit := range []*int{b.Predict, b.MaxTokens, b.MaxCompletionTokens} {
		if limit != nil {
			j.limit = *limit
		}
	}
	j.sampling = s.sampling(b, j.random)
	if failure := s.promptsOf(j); failure != nil {
		return nil, failure
	}
	j.texts = len(j.prompts) * max(1, b.N)
	j.offsets, j.shown, j.made = make([]int, j.texts), make([]bool, j.texts), make([]int, j.texts)
	if failure := s.dialect.check(s, j); failure != nil {
		return nil, failure
	}
	return j, s.fits(j)
}

func (s *Server) sampling(b *body, random *random) sampling {
	p := sampling{
		temperature: 1, keyed: s.options.Sampler, topK: max(0, b.TopK), penalized: b.FrequencyPenalty != 0 || b.PresencePenalty != 0,
		repetition: b.RepetitionPenalty > 1 || b.RepeatPenalty > 1,
	}
	if s.options.Greedy {
		p.temperature = 0
	}
	if b.Temperature != nil {
		p.temperature = *b.Temperature
	}
	if b.Seed != nil {
		p.seed = uint64(*b.Seed)
	} else {
		p.seed = random.number()
	}
	return p
}

// promptsOf makes ids of what was asked.
func (s *Server) promptsOf(j *job) *failure {
	b := j.body
	switch {
	case len(b.InputIDs) > 0 && s.kind == SGLang:
		j.prompts = [][]int{b.InputIDs}
		return s.knowsAll(j.prompts, true)
	case j.form == chatForm:
		return s.promptOfChat(j)
	case b.Text != "":
		j.prompts = [][]int{append([]int{tokenBegin}, theVocabulary.encode(b.Text, true)...)}
		return nil
	}
	prompts, ids, err := parsePrompts(b.Prompt)
	if err != nil || len(prompts) == 0 {
		return badRequest("prompt must be a text, a list of texts, or ids of tokens")
	}
	if !ids {
		for i := range prompts {
			prompts[i] = append([]int{tokenBegin}, prompts[i]...)
		}
	}
	j.prompts = prompts
	return s.knowsAll(prompts, ids)
}

// promptOfChat renders a chat, with its last message open if that is to be continued.
func (s *Server) promptOfChat(j *job) *failure {
	b := j.body
	if len(b.Messages) == 0 {
		return badRequest("messages must not be empty")
	}
	goOn := b.lastIsAssistant() && s.dialect.prefills(b)
	if goOn && s.options.NoPrefill {
		return badRequest("Assistant response prefill is not supported.")
	}
	answer := !goOn && (b.AddGenerationPrompt == nil || *b.AddGenerationPrompt)
	j.prompts = [][]int{s.chatPrompt(b, goOn, answer)}
	return nil
}

// chatPrompt is the prompt of a chat.
func (s *Server) chatPrompt(b *body, goOn, answer bool) []int {
	return append([]int{tokenBegin}, theVocabulary.encode(render(b.Messages, b.tools(), goOn, answer), true)...)
}

// knowsAll refuses ids where the server takes none, and ids that there are not.
func (s *Server) knowsAll(prompts [][]int, ids bool) *failure {
	if !ids {
		return nil
	}
	if s.options.NoTokenIDs {
		return badRequest("prompt must be a string")
	}
	for _, prompt := range prompts {
		for _, token := range prompt {
			if token < 0 || token >= theVocabulary.size() {
				return badRequest(fmt.Sprintf("Token id %d is out of vocabulary", token))
			}
		}
	}
	return nil
}

// fits refuses what goes beyond the context.
func (s *Server) fits(j *job) *failure {
	for _, prompt := range j.prompts {
		if len(prompt) >= s.options.ContextLength || len(prompt)+max(0, j.limit) > s.options.ContextLength && s.dialect.strict() {
			return tooLong(len(prompt), s.options.ContextLength)
		}
	}
	return nil
}

// promptTokens is the number of tokens of all prompts.
func (j *job) promptTokens() int {
	n := 0
	for _, prompt := range j.prompts {
		n += len(prompt)
	}
	return n
}

// wantsUsage says whether a stream ends with what it took.
func (j *job) wantsUsage() bool { return j.body.StreamOptions.IncludeUsage }

// promptOf is the prompt of one of the texts.
func (j *job) promptOf(text int) []int {
	return j.prompts[text/max(1, j.body.N)]
}

// promptOnce is the prompt of a text, the first time.
func (j *job) promptOnce(text int) any {
	if j.shown[text] {
		return nil
	}
	j.shown[text] = true
	return j.promptOf(text)
}

// madeIn counts the tokens of a piece, and returns how many its text has.
func (j *job) madeIn(p *piece) int {
	j.made[p.text] += len(p.chosen)
	return j.made[p.text]
}
