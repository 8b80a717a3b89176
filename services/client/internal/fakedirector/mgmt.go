package fakedirector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
)

// ErrGivenUp is why the context of an operation ends when the operator says so, ErrLeft when nobody has followed it for ten
// seconds.
var (
	ErrGivenUp = errors.New("the operator has given it up")
	ErrLeft    = errors.New("nobody follows it")
)

// Mgmt is the MGMT port of a node, over HTTPS. It lets in who has an operator's certificate. Set its fields before Start.
type Mgmt struct {
	Network quicnet.Network
	Addr    string // to listen on
	TLS     identity.Source

	// Operate is called for each request, a status among them. When it returns a *wire.Error the operator gets that; with any
	// other error the connection is broken off.
	Operate func(o *Operation) error

	mu         sync.Mutex
	operations map[string]*Operation // by id
	byKey      map[string]*Operation
	Requests   []string // methods and paths, as they came
	running    sync.WaitGroup
}

// Start serves until the test ends.
func (m *Mgmt) Start(t testing.TB) *Mgmt {
	t.Helper()
	m.operations, m.byKey = map[string]*Operation{}, map[string]*Operation{}
	l, err := m.Network.ListenStream(m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	access := mgmt.Access{Log: zap.NewNop()}
	mux := mgmt.NewMux(func() error { return nil }, func() (string, error) { return "", nil }, access)
	mux.Operate("GET /v1/status", m.status)
	mux.Operate("GET /v1/events", m.events)
	mux.Operate("POST /v1/{kind}", m.post)
	mux.Operate("GET /v1/operations/{id}", m.follow)
	mux.Operate("DELETE /v1/operations/{id}", m.giveUp)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		server := mgmt.HTTP{Handler: mux, TLS: identity.HTTPServerTLS(m.TLS), Log: zap.NewNop()}
		_ = server.Serve(ctx, l) // a test that kills the host knows
	}()
	t.Cleanup(func() {
		m.Forget()
		cancel()
		<-served
		m.running.Wait()
	})
	return m
}

// Forget ends all operations, and knows nothing of them any more, as after a new start.
func (m *Mgmt) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.operations {
		o.cancel(ErrLeft)
	}
	clear(m.operations)
	clear(m.byKey)
}

// Break ends all connections, and leaves the operations alone.
func (m *Mgmt) Break() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.operations {
		close(o.broken)
		o.broken = make(chan struct{})
	}
}

// note keeps what was asked for.
func (m *Mgmt) note(r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Requests = append(m.Requests, r.Method+" "+r.URL.Path)
}

func (m *Mgmt) status(w http.ResponseWriter, r *http.Request) {
	m.note(r)
	o := newOperation("status")
	defer context.AfterFunc(r.Context(), func() { o.cancel(ErrLeft) })()
	err := m.Operate(o)
	if refusal := (*wire.Error)(nil); errors.As(err, &refusal) {
		mgmt.Refuse(w, refusal)
		return
	}
	if err != nil {
		breakOff()
	}
	_, _ = io.WriteString(w, o.result) // the operator sees what is missing
}

func (m *Mgmt) post(w http.ResponseWriter, r *http.Request) {
	m.note(r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	m.mu.Lock()
	key := r.Header.Get("Idempotency-Key")
	o := m.byKey[key]
	if o == nil {
		o = newOperation(r.PathValue("kind") + " " + string(body))
		o.ID = fmt.Sprintf("op-%d", len(m.operations)+1)
		m.operations[o.ID], m.byKey[key] = o, o
		m.running.Go(func() { o.end(m.Operate(o)) })
	}
	m.mu.Unlock()
	w.Header().Set("Location", "/v1/operations/"+o.ID)
	m.stream(w, r, o, 0)
}

// events is an operation that whoever asks follows, from behind the event that they had last.
func (m *Mgmt) events(w http.ResponseWriter, r *http.Request) {
	m.note(r)
	m.mu.Lock()
	o := m.operations["events"]
	if o == nil {
		o = newOperation("events " + r.URL.RawQuery)
		m.operations["events"] = o
		ended := make(chan error, 1)
		m.running.Go(func() {
			err := m.Operate(o)
			ended <- err
			o.end(err)
		})
		select { // it is refused at once, or not at all
		case err := <-ended:
			if refusal := (*wire.Error)(nil); errors.As(err, &refusal) {
				delete(m.operations, "events")
				m.mu.Unlock()
				mgmt.Refuse(w, refusal)
				return
			}
		case <-time.After(time.Millisecond):
		}
	}
	m.mu.Unlock()
	after := 0
	_, _ = fmt.Sscan(r.Header.Get("Last-Event-ID"), &after) // none is 0
	m.stream(w, r, o, after)
}

func (m *Mgmt) find(w http.ResponseWriter, r *http.Request) *Operation {
	m.note(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.operations[r.PathValue("id")]
	if o == nil {
		mgmt.Refuse(w, wire.Errorf(wire.CodeNotFound, "no such operation"))
	}
	return o
}

func (m *Mgmt) follow(w http.ResponseWriter, r *http.Request) {
	if o := m.find(w, r); o != nil {
		after := 0
		_, _ = fmt.Sscan(r.Header.Get("Last-Event-ID"), &after) // none is 0
		m.stream(w, r, o, after)
	}
}

func (m *Mgmt) giveUp(w http.ResponseWriter, r *http.Request) {
	if o := m.find(w, r); o != nil {
		o.cancel(ErrGivenUp)
		mgmt.WriteJSON(w, http.StatusAccepted, struct{}{})
	}
}

// stream sends the events of an operation after the first ones.
func (m *Mgmt) stream(w http.ResponseWriter, r *http.Request, o *Operation, after int) {
	m.mu.Lock()
	broken := o.broken
	m.mu.Unlock()
	leave := o.join()
	defer leave()
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, ": hello\n\n")
	for {
		if out.Flush() != nil {
			return
		}
		events, news, over := o.events(after)
		for _, e := range events {
			after++
			_, _ = fmt.Fprintf(w, "id: %d\n%s", after, e)
		}
		switch {
		case over != nil:
			if errors.Is(over, errAbort) {
				_ = out.Flush() // a moment before
				breakOff()
			}
			return
		case len(events) > 0:
			continue
		}
		select {
		case <-news:
		case <-time.After(2 * time.Second):
			_, _ = io.WriteString(w, ": still there\n\n")
		case <-broken:
			breakOff()
		case <-r.Context().Done():
			return
		}
	}
}

// breakOff ends a handler and its connection.
func breakOff() {
	panic(http.ErrAbortHandler) //nolint:forbidigo // that is how net/http has it
}

var (
	errOver  = errors.New("over")
	errAbort = errors.New("broken off")
)

// Operation is an operator's request.
type Operation struct {
	ID      string
	Request string // its kind, and its body

	ctx    context.Context
	cancel context.CancelCauseFunc
	broken chan struct{} // closed to end the connections; guarded by Mgmt.mu

	mu        sync.Mutex
	result    string
	said      []string
	news      chan struct{}
	over      error
	followers int
	left      *time.Timer
}

func newOperation(request string) *Operation {
	o := &Operation{Request: request, news: make(chan struct{}), broken: make(chan struct{})}
	o.ctx, o.cancel = context.WithCancelCause(context.Background())
	return o
}

// Context ends when the request is given up.
func (o *Operation) Context() context.Context { return o.ctx }

// Say sends an event as it is, to be ended by an empty line.
func (o *Operation) Say(event string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said = append(o.said, event)
	close(o.news)
	o.news = make(chan struct{})
}

// Progress sends how far a drain or a rebalancing has come, as JSON.
func (o *Operation) Progress(moves string) { o.Say("event: progress\ndata: " + moves + "\n\n") }

// Result is the last word, as JSON.
func (o *Operation) Result(result string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.result = result
	return nil
}

// end says how the operation ended.
func (o *Operation) end(err error) {
	over := errOver
	if refusal := (*wire.Error)(nil); errors.As(err, &refusal) {
		text, _ := json.Marshal(mgmt.ProblemError{Code: refusal.Code, Message: refusal.Message}) // of texts: cannot fail
		o.Say("event: error\ndata: " + string(text) + "\n\n")
	} else if err != nil {
		over = errAbort
	} else if o.result != "" {
		o.Say("event: result\ndata: " + o.result + "\n\n")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = over
	close(o.news)
	o.news = make(chan struct{})
}

// events returns what was said after the first n events.
func (o *Operation) events(n int) (events []string, news chan struct{}, over error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said[min(n, len(o.said)):], o.news, o.over
}

// join counts a follower in, until leave.
func (o *Operation) join() (leave func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.followers++
	if o.left != nil {
		o.left.Stop()
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.followers--; o.followers == 0 {
			o.left = time.AfterFunc(10*time.Second, func() { o.cancel(ErrLeft) })
		}
	}
}
