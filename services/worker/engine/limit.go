package engine

// Limit counts the tokens of a text for its engine, and ends it at the MaxTokens of its request.
type Limit struct {
	prompt, made, most int
}

// NewLimit returns the Limit of a text that has so many tokens already; prompt is how many the prompt has.
func NewLimit(req Request, made, prompt int) Limit {
	return Limit{prompt: prompt, made: made, most: req.MaxTokens}
}

// Count returns how many tokens chunks stand for.
func Count(chunks []Chunk) (n int) {
	for _, c := range chunks {
		n += c.Count()
	}
	return n
}

// Take takes n tokens more, or returns the Finish of a text that has none left.
func (l *Limit) Take(n int) error {
	if l.most > 0 && l.made >= l.most {
		return l.Finish(Length)
	}
	l.made += n
	return nil
}

// Finish returns a Finish with the usage so far.
func (l *Limit) Finish(reason string) Finish {
	return Finish{Reason: reason, Usage: Usage{Prompt: l.prompt, Completion: l.made}}
}

// PromptTokens returns how many tokens the prompt has: see Prompted.
func (l *Limit) PromptTokens() int { return l.prompt }

// Made returns how many tokens there are.
func (l *Limit) Made() int { return l.made }
