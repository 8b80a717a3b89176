package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Upstream is the engine of a worker beside an inference server.
const Upstream = "upstream"

// UpstreamKinds are the kinds of inference servers.
var UpstreamKinds = []string{"auto", "vllm", "sglang", "llamacpp", "ollama", "openai"}

// Server configures what a worker with the engine upstream has its text made by.
type Server struct {
	UpstreamURL     string   `envconfig:"WORKER_UPSTREAM_URL" default:"" desc:"with the engine upstream: the inference server, such as http://127.0.0.1:8000"`
	UpstreamKind    string   `envconfig:"WORKER_UPSTREAM_KIND" default:"auto" desc:"what it is: auto (found out by asking), vllm, sglang, llamacpp, ollama or openai (any other with OpenAI's API)"`
	UpstreamKeyFile string   `envconfig:"WORKER_UPSTREAM_KEY_FILE" default:"" desc:"file with the key that it wants (Authorization: Bearer); read again for each request; empty for none"`
	UpstreamModels  []string `envconfig:"WORKER_UPSTREAM_MODELS" default:"" desc:"its models that are offered, comma-separated, the first to requests that name none; name=name at the server for another name; empty for all that it has"`

	UpstreamConnect time.Duration `envconfig:"WORKER_UPSTREAM_CONNECT_TIMEOUT" default:"2s" desc:"how long it may take to accept a connection"`
	UpstreamHeaders time.Duration `envconfig:"WORKER_UPSTREAM_HEADERS_TIMEOUT" default:"10s" desc:"how long it may take to begin an answer that is no stream, and to end one"`
	UpstreamFirst   time.Duration `envconfig:"WORKER_UPSTREAM_FIRST_TOKEN_TIMEOUT" default:"2m" desc:"how long it may take to the first token of a stream: as long as the longest prompt, and the queue"`
	UpstreamSilence time.Duration `envconfig:"WORKER_UPSTREAM_SILENCE_TIMEOUT" default:"30s" desc:"how long it may be silent between two tokens; directors notice sooner, by the stream's own rhythm"`

	MaxReplayTokens int `envconfig:"WORKER_MAX_REPLAY_TOKENS" default:"4096" desc:"tokens that a stream may have for its request to be made again from the beginning when its server is lost; it costs the time of each of them; 0 for any number"`
	UpstreamOverlap int `envconfig:"WORKER_UPSTREAM_OVERLAP" default:"6" desc:"tokens that are made again and compared where a stream goes on by token ids"`
}

// Offer is a model that a worker has of its inference server.
type Offer struct {
	Name string // in requests
	At   string // at the server
}

// Offers reads UpstreamModels; none for all that the server has. The error says what to change.
func (s *Server) Offers() ([]Offer, error) {
	var offers []Offer
	for _, part := range s.UpstreamModels {
		name, at, renamed := strings.Cut(strings.TrimSpace(part), "=")
		if !renamed {
			at = name
		}
		if name == "" || at == "" {
			return nil, fmt.Errorf("%q: give a name, or name=name at the server", part)
		}
		if err := CheckModel(name); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(offers, func(o Offer) bool { return o.Name == name }) {
			return nil, fmt.Errorf("%s stands there twice", name)
		}
		offers = append(offers, Offer{name, at})
	}
	return offers, nil
}

// longestModel is what the name of a model may have, in bytes.
const longestModel = 260

// CheckModel says what is wrong with the name of a model that a worker is to have.
func CheckModel(name string) error {
	if name == "" || len(name) > longestModel || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%.80q: not a name of a model; give 1 to %d bytes of what can be printed", name, longestModel)
	}
	return nil
}

func (s *Server) validate(p *Problems, engine string) {
	if engine != Upstream {
		if s.UpstreamURL != "" {
			p.add("WORKER_UPSTREAM_URL", withoutPassword(s.UpstreamURL), "only with %s=%s", full("WORKER_ENGINE"), Upstream)
		}
		return
	}
	if err := checkURL(s.UpstreamURL); err != nil {
		p.add("WORKER_UPSTREAM_URL", withoutPassword(s.UpstreamURL), "%v; give one such as http://127.0.0.1:8000", err)
	}
	p.oneOf("WORKER_UPSTREAM_KIND", s.UpstreamKind, UpstreamKinds...)
	if _, err := ReadKey(s.UpstreamKeyFile); err != nil {
		p.add("WORKER_UPSTREAM_KEY_FILE", s.UpstreamKeyFile, "%v", err)
	}
	if _, err := s.Offers(); err != nil {
		p.add("WORKER_UPSTREAM_MODELS", strings.Join(s.UpstreamModels, ","), "%v", err)
	}
	p.positive("WORKER_UPSTREAM_CONNECT_TIMEOUT", s.UpstreamConnect)
	p.positive("WORKER_UPSTREAM_HEADERS_TIMEOUT", s.UpstreamHeaders)
	p.positive("WORKER_UPSTREAM_FIRST_TOKEN_TIMEOUT", s.UpstreamFirst)
	p.positive("WORKER_UPSTREAM_SILENCE_TIMEOUT", s.UpstreamSilence)
	p.atLeast("WORKER_MAX_REPLAY_TOKENS", s.MaxReplayTokens, 0)
	between(p, "WORKER_UPSTREAM_OVERLAP", s.UpstreamOverlap, 1, 64)
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return errors.New("the engine upstream needs a server")
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return errors.New("no URL of a server")
	case u.User != nil:
		return fmt.Errorf("a user or password does not belong there, see %s", full("WORKER_UPSTREAM_KEY_FILE"))
	case u.RawQuery != "", u.Fragment != "":
		return errors.New("a query or fragment does not belong there")
	}
	return nil
}

// withoutPassword is what was given for a URL as it may be shown: what may be a password or a key in it is not.
func withoutPassword(text string) string {
	if !strings.ContainsAny(text, "@?#") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "…"
	}
	if _, has := u.User.Password(); !has {
		u.User = url.User("xxxxx")
	}
	return u.Redacted()
}
