package servertest

import (
	"net"
	"net/http"
	"testing"
	"time"
)

// Request is one that has arrived.
type Request struct {
	Method string
	Path   string
	Header http.Header
	Body   []byte    // as it came
	When   time.Time // it had been read

	Continues bool // it wants something continued: ids as the prompt, or a last message of an assistant
}

// Server is a scripted inference server. All its methods are safe for concurrent use.
type Server struct {
	kind    Kind
	options Options
}

// New returns a server that runs nowhere yet.
func New(kind Kind, options Options) *Server {
	return &Server{kind: kind, options: options}
}

// ServeHTTP answers as the server of its kind.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
}

// Listen runs the server on a free port of the loopback interface until the test ends, and returns its URL, without a slash at the end.
func (s *Server) Listen(t testing.TB) string {
	return ""
}

// Serve runs the server on what listen opens, at once, and at each Start after a Kill once more, until Close. The error is that of
// listen.
func (s *Server) Serve(listen func() (net.Listener, error)) error { return nil }

// Close ends what Listen and Serve began, and waits for it.
func (s *Server) Close() {}

// Kill is the death of the process: every connection is reset, and new ones are refused, until Start.
func (s *Server) Kill() {}

// Start is the beginning of a new process after Kill. The error is that of listen.
func (s *Server) Start() error { return nil }

// Hang is a stop of the process (SIGSTOP): connections stay and are taken, nothing is read, answered or generated, until Resume.
func (s *Server) Hang() {}

// Resume ends Hang.
func (s *Server) Resume() {}

// SetLoading says whether the server is loading its model: it then answers 503, where its kind does, and else waits with its answers.
func (s *Server) SetLoading(loading bool) {}

// Fail adds faults.
func (s *Server) Fail(faults ...Fault) {}

// Heal takes all faults away. Requests that suffer already go on to do so.
func (s *Server) Heal() {}

// Requests returns what has arrived, in the order of arrival, of any path.
func (s *Server) Requests() []Request { return nil }

// Running is how many requests the server generates for, or has waiting. It falls at once when a client disconnects.
func (s *Server) Running() int { return 0 }

// Tokens is how many tokens were generated since New.
func (s *Server) Tokens() int { return 0 }

// Events is how many events the last stream that ended had put out, [DONE] included.
func (s *Server) Events() int { return 0 }

// Upgrade changes version and fingerprint, as an installation of something newer does; weights are what the texts come from.
func (s *Server) Upgrade(version, fingerprint, weights string) {}
