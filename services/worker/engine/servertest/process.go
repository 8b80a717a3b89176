package servertest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// process is what runs a server on a listener, dies and starts anew. It is safe for concurrent use.
type process struct {
	mu       sync.Mutex
	listen   func() (net.Listener, error)
	server   *http.Server // nil while dead
	conns    map[net.Conn]struct{}
	serving  sync.WaitGroup
	handling sync.WaitGroup
}

// Listen runs the server on a free port of the loopback interface until the test ends, and returns its URL, without a slash at the end.
func (s *Server) Listen(t testing.TB) string {
	t.Helper()
	address := "127.0.0.1:0"
	err := s.Serve(func() (net.Listener, error) {
		l, err := net.Listen("tcp", address) //nolint:noctx // at once, and not across a network
		if err == nil {
			address = l.Addr().String() // after a Kill the same again
		}
		return l, err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return "http://" + address
}

// Serve runs the server on what listen opens: at once, and at each Start after a Kill once more, until Close. The error is that of
// listen.
func (s *Server) Serve(listen func() (net.Listener, error)) error {
	s.process.mu.Lock()
	s.process.listen = listen
	s.process.mu.Unlock()
	return s.Start()
}

// Start is the beginning of a new process after Kill. The error is that of listen, or says that there is nothing to listen on. A
// process that lives is left alone.
func (s *Server) Start() error {
	p := &s.process
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.listen == nil:
		return errors.New("servertest: not served anywhere: use Listen or Serve")
	case p.server != nil:
		return nil
	}
	l, err := p.listen()
	if err != nil {
		return err
	}
	p.conns = make(map[net.Conn]struct{})
	p.server = &http.Server{Handler: p.handler(s), ConnState: p.follow, ReadHeaderTimeout: time.Minute}
	p.serving.Add(1)
	go func(server *http.Server) {
		defer p.serving.Done()
		_ = server.Serve(l) // until Kill or Close
	}(p.server)
	return nil
}

// handler counts the requests that are being answered.
func (p *process) handler(s *Server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.begin() {
			defer p.handling.Done()
			s.ServeHTTP(w, r)
		}
	})
}

// begin counts a request, unless the process is dead and its connection with it.
func (p *process) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return false
	}
	p.handling.Add(1)
	return true
}

// follow keeps the connections.
func (p *process) follow(conn net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.conns[conn] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, conn)
	default:
	}
}

// Kill is the death of the process: every connection is reset, and new ones are refused, until Start. What hangs does not any more.
func (s *Server) Kill() {
	p := &s.process
	p.mu.Lock()
	server, conns := p.server, p.conns
	p.server, p.conns = nil, make(map[net.Conn]struct{})
	p.mu.Unlock()
	if server == nil {
		return
	}
	for conn := range conns {
		abort(conn)
	}
	_ = server.Close() // closed connections are not closed twice
	s.gate.open()
}

// Close ends what Listen and Serve began, and waits for it.
func (s *Server) Close() {
	s.Kill()
	s.process.serving.Wait()
	s.process.handling.Wait()
}

// Hang is a stop of the process (SIGSTOP): connections stay and new ones are taken, nothing is answered or generated, until Resume.
func (s *Server) Hang() { s.gate.close() }

// Resume ends Hang.
func (s *Server) Resume() { s.gate.open() }

// pass waits while the process hangs. The error is why ctx has ended.
func (s *Server) pass(ctx context.Context) error {
	s.gate.wait()
	return context.Cause(ctx)
}

// sleep waits, and while the process hangs. The error is why ctx has ended.
func (s *Server) sleep(ctx context.Context, d time.Duration) error {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return s.pass(ctx)
}

// gate is closed while a process hangs. It is safe for concurrent use.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // closed when the gate opens; nil while it is open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) wait() {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened != nil {
		<-opened
	}
}
