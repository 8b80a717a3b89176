package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxDocument = 32 << 20 // bytes of an answer that is no stream
	maxError    = 8 << 10  // bytes of an answer that says what is wrong

	// idleTimeout is how long a connection waits for another request. Uvicorn, which vLLM and SGLang use, closes one after 5 s, and a
	// request that is on its way then is lost.
	idleTimeout = 4 * time.Second
	maxIdle     = 64
)

// client sends requests to one server. It follows no redirects, which could lead to another host with the key, and uses no proxy, which
// could hold a stream back: a server is where its URL says.
type client struct {
	root     string // URL before /v1, without a slash at its end
	key      func() (string, error)
	http     *http.Client
	timeouts Timeouts
	counts   atomic.Bool // the server was seen to tell usages
}

func newClient(cfg Config) (*client, error) {
	root, err := parseRoot(cfg.URL)
	if err != nil {
		return nil, err
	}
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if cfg.Timeouts.Connect > 0 {
				// A dial may outlive the request that wanted it.
				limited, cancel := context.WithTimeout(ctx, cfg.Timeouts.Connect)
				defer cancel()
				ctx = limited
			}
			return dial(ctx, network, address)
		},
		TLSHandshakeTimeout:    cfg.Timeouts.Connect,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
	return &client{
		root: root,
		key:  cfg.Key,
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		timeouts: cfg.Timeouts,
	}, nil
}

// parseRoot returns what paths such as /v1/models are appended to.
func parseRoot(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("the URL of the server cannot be read; one like http://127.0.0.1:8000 is expected")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "", fmt.Errorf("the URL of the server is to begin with http:// or https:// and a host, not %q", u.Redacted())
	case u.User != nil:
		return "", errors.New("the URL of the server has a user or password; a key is configured beside it")
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("the URL of the server has a query or fragment: %q", u.Redacted())
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1")
	u.RawPath = ""
	return strings.TrimRight(u.String(), "/"), nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// message is a request to the server.
type message struct {
	method string // POST if there is a body, else GET
	path   string // from /v1 on
	body   []byte // in JSON
	trace  string // traceparent
	stream bool
	head   time.Duration // until the head of the answer; 0 for no limit
}

// answer is one of the server with status 200. Its body has to be closed.
type answer struct {
	header http.Header
	body   io.ReadCloser
	watch  *watch
}

// close ends the exchange: where the body has not been read to its end, the connection closes, too.
func (a *answer) close() {
	a.watch.end()
	a.body.Close()
}

// send sends a message and returns the answer to it. The error is an *Error, or ctx's.
func (c *client) send(ctx context.Context, m message) (*answer, error) {
	w := newWatch(ctx)
	key, req, err := c.request(w, m)
	if err != nil {
		w.end()
		return nil, err
	}
	w.arm(c.timeouts.Connect, &Error{Fault: Gone, Message: "no connection within " + c.timeouts.Connect.String()})
	resp, err := c.http.Do(req) //nolint:bodyclose // the answer closes it
	w.hasHead()
	if err != nil {
		err = w.fault(err, Gone)
		w.end()
		return nil, err
	}
	a := &answer{header: resp.Header, body: resp.Body, watch: w}
	if resp.StatusCode/100 == 2 {
		return a, nil
	}
	defer a.close()
	w.arm(c.timeouts.Headers, silent("the answer that says what is wrong did not end"))
	doc, _ := io.ReadAll(io.LimitReader(resp.Body, maxError+1)) // what is there says enough
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, statusError(resp.StatusCode, resp.Header, redact(doc, key))
}

func (c *client) request(w *watch, m message) (key string, req *http.Request, err error) {
	head := silent("no answer within " + m.head.String())
	trace := &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { w.armHead(m.head, head) },
		WroteRequest: func(httptrace.WroteRequestInfo) { w.armHead(m.head, head) },
	}
	if m.method == "" {
		m.method = http.MethodGet
		if m.body != nil {
			m.method = http.MethodPost
		}
	}
	req, err = http.NewRequestWithContext(httptrace.WithClientTrace(w.ctx, trace), m.method, c.root+m.path, bytes.NewReader(m.body))
	if err != nil {
		return "", nil, &Error{Fault: Denied, Message: "no request can be made for " + m.path, Err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if m.stream {
		req.Header.Set("Accept", "text/event-stream")
	}
	req.Header.Set("User-Agent", "connswap")
	if m.trace != "" {
		req.Header.Set("Traceparent", m.trace)
	}
	// It is not sent: it lets net/http try again where an idle connection turns out to be closed before there was an answer.
	req.Header["Idempotency-Key"] = nil
	if c.key == nil {
		return "", req, nil
	}
	if key, err = c.key(); err != nil {
		return "", nil, &Error{Fault: Denied, Message: "there is no key for the server", Err: err}
	}
	if key = strings.TrimSpace(key); key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	return key, req, nil
}

// document sends a message and returns the body of the answer.
func (c *client) document(ctx context.Context, m message) ([]byte, error) {
	if m.head == 0 {
		m.head = c.timeouts.Headers
	}
	a, err := c.send(ctx, m)
	if err != nil {
		return nil, err
	}
	defer a.close()
	return c.read(a)
}

// read reads an answer that is one document.
func (c *client) read(a *answer) ([]byte, error) {
	a.watch.arm(c.timeouts.Headers, silent("the answer did not end"))
	defer a.watch.disarm()
	doc, err := io.ReadAll(io.LimitReader(a.body, maxDocument+1))
	if err != nil {
		return nil, a.watch.fault(err, Broken)
	}
	if len(doc) > maxDocument {
		return nil, broken(fmt.Sprintf("an answer of more than %d bytes", maxDocument))
	}
	return doc, nil
}

// get asks for a JSON document.
func (c *client) get(ctx context.Context, path string, into any) error {
	return c.exchange(ctx, message{path: path}, into)
}

// post sends a value as JSON, and reads the answer into another.
func (c *client) post(ctx context.Context, path string, value, into any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return &Error{Fault: Rejected, Status: http.StatusBadRequest, Message: "the request is no JSON", Err: err}
	}
	return c.exchange(ctx, message{path: path, body: body}, into)
}

func (c *client) exchange(ctx context.Context, m message, into any) error {
	doc, err := c.document(ctx, m)
	if err != nil {
		return err
	}
	if err := errorIn(doc); err != nil {
		return err
	}
	if err := json.Unmarshal(doc, into); err != nil {
		return &Error{Fault: Broken, Message: "the answer of " + m.path + " cannot be read", Err: err}
	}
	return nil
}

func isCertificate(err error) bool {
	verification := (*tls.CertificateVerificationError)(nil)
	return errors.As(err, &verification)
}
