package engine

// Prompted is a Generation that knows from its beginning how many tokens its prompt has. It is optional: with it the usage is known
// of a text, too, that the director ends, at a stop string.
type Prompted interface {
	Generation
	// PromptTokens returns what a Finish will say as Usage.Prompt.
	PromptTokens() int
}

// Answering is an Engine that answers other requests than for text, too, such as for embeddings. Such an answer is one JSON document,
// which is the content of its generation, in as many chunks as it takes, with the reason Stop. It is optional.
type Answering interface {
	Engine
	// Answers returns which APIs it answers, as Request.API names them: embeddings, moderations, rerank, score, tokenize, detokenize.
	Answers() []string
}

// Promising is an Engine that does not promise Exact for all that it makes. It is optional.
type Promising interface {
	Engine
	// Promises returns the best class that it can promise for a request.
	Promises() Continuity
}

// Pledging is a Generation that promises something else for its stream than the engine does in general. It is optional.
type Pledging interface {
	Generation
	// Pledge is asked for once, before the first Next.
	Pledge() Pledge
}

// Pledge is what a generation promises.
type Pledge struct {
	Continuity Continuity // where another worker with an equal fingerprint has to go on
	Portable   bool       // engines of the same name with another fingerprint may go on, too
	Resumed    Continuity // in which class this generation goes on behind its prefix; Exact where there is none
}
