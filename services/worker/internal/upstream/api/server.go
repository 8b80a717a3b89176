package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/connswap/connswap/services/worker/engine"
)

// Server is one inference server. It is safe for concurrent use.
type Server struct {
	client *client
	kind   Kind // as configured

	mu      sync.Mutex
	dialect dialect // of the kind; nil until it is known
	found   found
}

// dialect is how one kind of server is asked. It keeps nothing of what it is told.
type dialect interface {
	identify(ctx context.Context) (found, error)
	health(ctx context.Context) (Health, error)
	load(ctx context.Context) (Load, error)
	// request returns what a call for a stream is, and what reads the answer.
	request(call Call) (request, error)
	// warming returns what has the server read the prompt of a call.
	warming(call Call) (request, error)
	tokenize(ctx context.Context, call Call) ([]uint32, error)
	likely(ctx context.Context, model string, ids []uint32, from int) (bool, error)
	// path returns where an API that is not for text is asked.
	path(api string) string
}

// found is what asking a server has found.
type found struct {
	identity Identity
	features Features
	answers  []string // which APIs that are not for text it is known to answer
}

// request is what a server is sent for a stream.
type request struct {
	path    string
	body    *body
	decoder decoder
	early   bool // the head of the answer comes before its first chunk is there
}

// New returns a Server, which is asked nothing yet. The error says what is wrong with cfg.
func New(cfg Config) (*Server, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{client: c, kind: cfg.Kind}
	if s.kind == "" {
		s.kind = Auto
	}
	if s.kind == Auto {
		return s, nil
	}
	if s.dialect = dialectOf(s.kind, c); s.dialect == nil {
		return nil, fmt.Errorf("there is no kind of server %q; auto, vllm, sglang, llamacpp, ollama and openai are known", s.kind)
	}
	return s, nil
}

// dialectOf returns how a kind is asked, or nil.
func dialectOf(kind Kind, c *client) dialect {
	base := openAI{client: c}
	switch kind {
	case VLLM:
		return vllm{base}
	case SGLang:
		return sglang{base}
	case LlamaCPP:
		return llamaCPP{base}
	case Ollama:
		return ollama{base}
	case OpenAI:
		return base
	default:
		return nil
	}
}

// Close ends idle connections.
func (s *Server) Close() { s.client.close() }

// Identify asks what the server is, and which models it has. Where a server tells a model's fingerprint only with a text, it makes one
// token.
func (s *Server) Identify(ctx context.Context) (Identity, error) {
	d, err := s.detect(ctx, s.kind == Auto)
	if err != nil {
		return Identity{}, err
	}
	f, err := d.identify(ctx)
	if err != nil {
		return Identity{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialect, s.found = d, f
	return f.identity, nil
}

// detect returns the dialect, which it finds out where it is not known, or may have changed.
func (s *Server) detect(ctx context.Context, again bool) (dialect, error) {
	s.mu.Lock()
	d := s.dialect
	s.mu.Unlock()
	if d != nil && !again {
		return d, nil
	}
	kind, err := s.client.discover(ctx)
	if err != nil {
		return nil, err
	}
	d = dialectOf(kind, s.client)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialect = d
	return d, nil
}

// Features returns those of the server that Identify has found; none before that.
func (s *Server) Features() Features {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found.features
}

// Answers returns which of these APIs the server is known to answer.
func (s *Server) Answers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found.answers
}

// Health asks how the server is, by its own end point. An error says that it is not there, or not well.
func (s *Server) Health(ctx context.Context) (Health, error) {
	d, err := s.detect(ctx, false)
	if starting := (*Error)(nil); errors.As(err, &starting) && starting.isLoading() {
		return Health{Starting: true, Reason: starting.Message}, nil
	}
	if err != nil {
		return Health{}, err
	}
	return d.health(ctx)
}

// Load asks what the server has to do.
func (s *Server) Load(ctx context.Context) (Load, error) {
	d, err := s.detect(ctx, false)
	if err != nil {
		return Load{}, err
	}
	return d.load(ctx)
}

// Generate begins a text. The stream ends with ctx, and the server is told so at once. The error is an *Error, or ctx's.
func (s *Server) Generate(ctx context.Context, call Call) (*Stream, error) {
	d, err := s.detect(ctx, false)
	if err != nil {
		return nil, err
	}
	req, err := d.request(call)
	if err != nil {
		return nil, err
	}
	return s.client.stream(ctx, req, call.Trace)
}

// stream sends a request, and returns the answer as soon as its head is there.
func (c *client) stream(ctx context.Context, req request, trace string) (*Stream, error) {
	m := message{path: req.path, body: req.body.bytes(), trace: trace, stream: true, head: c.timeouts.Headers}
	if !req.early {
		m.head = longer(c.timeouts.Headers, c.timeouts.First)
	}
	a, err := c.send(ctx, m)
	if err != nil {
		return nil, err
	}
	if a.isDocument() {
		defer a.close()
		doc, err := c.read(a)
		if err != nil {
			return nil, err
		}
		if err := errorIn(doc); err != nil {
			return nil, err
		}
		return nil, broken("the answer is no stream")
	}
	return newStream(a, req.decoder, &c.counts, c.timeouts.First, c.timeouts.Silence), nil
}

// longer returns the longer one of two limits, of which 0 is none.
func longer(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// Warm has the server read a call's prompt, and what the answer has so far, so that going on there takes less time.
func (s *Server) Warm(ctx context.Context, call Call) error {
	d, err := s.detect(ctx, false)
	if err != nil {
		return err
	}
	call.MaxTokens, call.Choices, call.Unlimited = 1, 1, false
	req, err := d.warming(call)
	if err != nil {
		return err
	}
	stream, err := s.client.stream(ctx, req, call.Trace)
	if err != nil {
		return err
	}
	defer stream.Close()
	for err == nil {
		_, err = stream.Next()
	}
	if _, ok := engine.Finished(err); ok {
		return nil
	}
	return err
}

// Tokenize returns the ids of a call's prompt, with the chat's template where it has one. errors.ErrUnsupported where the server
// cannot say.
func (s *Server) Tokenize(ctx context.Context, call Call) ([]uint32, error) {
	d, err := s.detect(ctx, false)
	if err != nil {
		return nil, err
	}
	return d.tokenize(ctx, call)
}

// Likely reports whether each of the ids from an index on is the likeliest after those before it. errors.ErrUnsupported where the
// server cannot say.
func (s *Server) Likely(ctx context.Context, model string, ids []uint32, from int) (bool, error) {
	if from < 1 || from > len(ids) {
		return false, fmt.Errorf("likely: from %d of %d ids; the first has none before it", from, len(ids))
	}
	d, err := s.detect(ctx, false)
	if err != nil || from == len(ids) {
		return err == nil, err
	}
	return d.likely(ctx, model, ids, from)
}

// Answer answers a request that is not for text (see engine.Answering) with the server's document.
func (s *Server) Answer(ctx context.Context, api, model string, doc []byte) ([]byte, error) {
	d, err := s.detect(ctx, false)
	if err != nil {
		return nil, err
	}
	b, err := parseBody(doc)
	if err != nil {
		return nil, err
	}
	b.setString("model", model)
	head := longer(s.client.timeouts.Headers, s.client.timeouts.First) // it is there when the answer is
	doc, err = s.client.document(ctx, message{path: d.path(api), body: b.bytes(), head: head})
	if err != nil {
		return nil, err
	}
	return doc, errorIn(doc)
}
