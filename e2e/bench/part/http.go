package part

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// HTTP: a client asks for a chat completion and reads it as server-sent events, on a connection of its own. All that is between
// it and the worker passes on events of the same size.

const chatPath = "/v1/chat/completions"

// Chat is a client's connection: one completion after the other, in HTTP/1.1 and in the clear.
type Chat struct {
	conn net.Conn
	in   *bufio.Reader
}

// DialChat connects.
func DialChat(ctx context.Context, addr string) (*Chat, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Chat{conn, bufio.NewReader(conn)}, nil
}

// Close ends the connection, and whatever is read from it.
func (c *Chat) Close() error { return c.conn.Close() }

// chatRequest is what a client asks for.
type chatRequest struct {
	Stream    bool          `json:"stream"`
	Seed      uint64        `json:"seed"`
	MaxTokens uint64        `json:"max_tokens,omitempty"`
	IgnoreEOS bool          `json:"ignore_eos"` // no text ends before it has all its tokens
	Messages  []chatMessage `json:"messages"`
}

type chatMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Ask asks for a completion of so many tokens; 0 for as many as there may be.
func (c *Chat) Ask(prompt string, seed, tokens uint64) (*Chunks, error) {
	body, err := json.Marshal(chatRequest{true, seed, tokens, true, []chatMessage{{"user", prompt}}})
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c.conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		chatPath, c.conn.RemoteAddr(), len(body), body)
	if err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(c.in, nil) //nolint:bodyclose // it is read to its end, or the connection is closed
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(answer.Body) // there is an error already
		return nil, fmt.Errorf("%s: %s", answer.Status, said)
	}
	return &Chunks{in: bufio.NewReader(answer.Body)}, nil
}

// Chunks are the events of a completion.
type Chunks struct {
	in   *bufio.Reader
	size int // of the event that was read last
}

// Next returns the text of the next chunk that has some, as it stands in the JSON; io.EOF behind the last one.
func (s *Chunks) Next() ([]byte, error) {
	for {
		line, err := s.in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF // it has not said that it is complete
		case err != nil:
			return nil, err
		case bytes.Equal(line, []byte("data: [DONE]\n")):
			_, err := io.Copy(io.Discard, s.in)
			return nil, cmp.Or(err, io.EOF)
		case bytes.HasPrefix(line, []byte(`data: {"error"`)):
			return nil, fmt.Errorf("the stream failed: %s", line)
		}
		_, text, _ := bytes.Cut(line, []byte(`"content":"`))
		if text, _, _ = bytes.Cut(text, []byte(`"},"logprobs"`)); len(text) > 0 {
			s.size = len(line) + len("\n")
			return text, nil
		}
	}
}

// httpClient reads each stream on a connection of its own.
func httpClient(ctx context.Context, s Setup) (running, error) {
	p, err := startClient(ctx, s.Load, func(ctx context.Context) (conn, error) {
		c, err := DialChat(ctx, s.Target)
		return httpConn{c}, err
	})
	p.probe = func() (First, error) { return probe(ctx, s.Target) }
	return p, err
}

type httpConn struct{ *Chat }

func (c httpConn) open(context.Context) (stream, error) {
	s, err := c.Ask("bench", 0, streamTokens)
	return httpStream{s}, err
}

type httpStream struct{ *Chunks }

func (s httpStream) read(r *reader) error {
	for {
		text, err := s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(r, text); err != nil {
			return err
		}
		if r.sequence == 1 {
			r.meter.eventSize.Store(int64(s.size))
		}
	}
}

// First is how long the first event takes from the request on, whose token the worker has at once.
type First struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

// probes is of how many streams the first event is timed.
const probes = 200

// probe asks for one short stream after the other, on one connection.
func probe(ctx context.Context, addr string) (f First, err error) {
	c, err := DialChat(ctx, addr)
	if err != nil {
		return f, err
	}
	defer c.Close() //nolint:errcheck // all has been read
	var h histogram
	for range probes {
		time.Sleep(rand.N(20 * time.Millisecond)) // at all points between two steps
		began := time.Now()
		s, err := c.Ask("bench", 0, 1)
		if err != nil {
			return f, err
		}
		if _, err = s.Next(); err != nil {
			return f, err
		}
		h.add(time.Since(began))
		if _, err = s.Next(); !errors.Is(err, io.EOF) {
			return f, fmt.Errorf("after the only token: %w", err)
		}
	}
	return First{h.quantile(0.50), h.quantile(0.99)}, nil
}

// httpServe serves in the clear.
func httpServe(s Setup, h http.Handler) (running, error) {
	l, err := net.Listen("tcp", s.Listen[0])
	if err != nil {
		return running{}, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: flowTimeout}
	return background(func() error { return server.Serve(l) }), nil
}

// What each chunk has around its text. The ids are as long as the director's.
const (
	chunkHead = `data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"stepped","choices":[{"index":0,"delta":{`
	chunkTail = `},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	chunkRole = chunkHead + `"role":"assistant","content":""` + chunkTail
	chunkDone = "data: [DONE]\n\n"
)

// httpWorker is a server that makes such streams, and does nothing else.
func httpWorker(ctx context.Context, s Setup) (running, error) {
	steps := newSteps(ctx, s.Load.interval())
	return httpServe(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked chatRequest
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		out := http.NewResponseController(w)
		event := []byte(chunkRole)
		for made := uint64(1); made <= asked.MaxTokens; made++ {
			due, err := steps.next(r.Context(), made-1)
			if err != nil {
				return
			}
			event = append(event, chunkHead+`"content":"`...)
			event = append(appendText(event, due, made), `"`+chunkTail...)
			if _, err := w.Write(event); err != nil || out.Flush() != nil {
				return // the client has gone
			}
			event = event[:0]
		}
		_, _ = io.WriteString(w, chunkDone) // whoever is gone is not told
	}))
}

// httpRelay is a reverse proxy of the standard library.
func httpRelay(_ context.Context, s Setup) (running, error) {
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: s.Target}) },
		FlushInterval: -1, // at once
		Transport:     &http.Transport{MaxIdleConnsPerHost: s.Load.Streams, DisableCompression: true},
	}
	return httpServe(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Or net/http would take the end of the request's body away from a proxy whose worker answers that fast.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
}
