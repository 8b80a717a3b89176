package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/wire"
)

const (
	// answerTimeout is how long a director may take to answer what it can answer at once, and to say that a time
	// which it was given is over. One that is not there at all is noticed earlier.
	answerTimeout = 15 * time.Second
	// answerLimit is what an answer may have, in bytes: a status lists every stream.
	answerLimit = 64 << 20
	// problemLimit is the same for a refusal.
	problemLimit = 64 << 10
	// busyPause is how long to wait where a director has too much to do for the moment.
	busyPause = time.Second
)

// within limits the wait for an answer.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, wire.Errorf(wire.CodeLost,
		"the director has not answered for %v; ask again, and look at its log if it stays so", limit))
}

// begin counts a request in, and returns a context that ends with the Client too. The caller calls end.
func (c *Client) begin(ctx context.Context) (asking context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		cancel(context.Cause(c.ctx))
		return ctx, func() {}
	}
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	c.asking.Add(1)
	return ctx, func() {
		stop()
		cancel(nil)
		c.asking.Done()
	}
}

// get asks for a document.
func (c *Client) get(ctx context.Context, path string) (json.RawMessage, error) {
	ctx, end := c.begin(ctx)
	defer end()
	for {
		body, err := c.fetch(ctx, path)
		if !errors.Is(err, &wire.Error{Code: wire.CodeLimit}) {
			if err != nil {
				return nil, duringRequest(ctx, err)
			}
			return body, nil
		}
		if pause(ctx, busyPause) != nil {
			return nil, explain(ctx, err)
		}
	}
}

// fetch asks for a document once.
func (c *Client) fetch(ctx context.Context, path string) (json.RawMessage, error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readAll(resp.Body, answerLimit)
}

// send makes a request. What the director refuses is a *wire.Error.
func (c *Client) send(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header.Clone()
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal reads why the director does not do it.
func refusal(resp *http.Response) error {
	text, err := readAll(resp.Body, problemLimit)
	if err != nil {
		return err
	}
	var problem mgmt.Problem
	if err := json.Unmarshal(text, &problem); err != nil || problem.Error.Code == "" {
		return wire.Errorf(wire.CodeProtocol, "the director's answer is %s and does not say why", resp.Status)
	}
	return told(problem.Error)
}

// told is an error in the director's words, such as can be shown.
func told(e mgmt.ProblemError) *wire.Error {
	return wire.Errorf(wire.Code(wire.Text(string(e.Code))), "%s", wire.Text(e.Message))
}

// readAll reads a body of so many bytes at most.
func readAll(body io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = wire.Errorf(wire.CodeProtocol, "the director's answer has more than %d bytes", limit)
	}
	return text, err
}

// pause waits, unless ctx ends before: that is the error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// missing is the error for an answer without the part that was asked for.
func missing(part string) error {
	return wire.Errorf(wire.CodeProtocol, "the director's answer has no %s", part)
}

// decode reads a part of an answer.
func decode(text json.RawMessage, part string, v any) error {
	if len(text) == 0 || string(bytes.TrimSpace(text)) == "null" {
		return missing(part)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fault.Wrap(wire.CodeProtocol, fmt.Sprintf("the director's %s", part), err)
	}
	return nil
}
