package mgmt_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/simtest"
)

// anybody may read.
func anybody() mgmt.Access { return mgmt.Access{PlainStatus: true, Log: zap.NewNop()} }

const goodToken = "0123456789abcdef-good"

// secured is a port that speaks TLS, with /v1/thing to read and /v1/act to act.
type secured struct {
	*testing.T

	net     *simtest.Net
	sources map[identity.Role]identity.Source
	logged  *observer.ObservedLogs
	tokens  string // their file
}

func serveSecured(t *testing.T, plainStatus bool, test func(s *secured)) {
	synctest.Test(t, func(t *testing.T) {
		s := &secured{T: t, net: simtest.New(1, simtest.Options{Path: simtest.Path{Delay: time.Millisecond}})}
		defer s.net.Close()
		var err error
		s.sources, err = identity.NewDevelopment(time.Now())
		require.NoError(t, err)
		core, logged := observer.New(zap.DebugLevel)
		s.logged = logged
		s.tokens = filepath.Join(t.TempDir(), "tokens")
		require.NoError(t, os.WriteFile(s.tokens, []byte("# of the night shift\n\n"+goodToken+"\n"), 0o600))
		tokens, err := mgmt.ReadTokens(s.tokens, zap.New(core))
		require.NoError(t, err)
		l, err := s.net.Host("server").ListenStream(":61001")
		require.NoError(t, err)

		mux := mgmt.NewMux(fine, noted(fine), mgmt.Access{PlainStatus: plainStatus, Tokens: tokens, Log: zap.New(core)})
		mux.Document("/v1/thing", func(r *http.Request) (any, error) { return map[string]bool{"operator": mgmt.IsOperator(r)}, nil })
		mux.Operate("POST /v1/act", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, mgmt.Caller(r))
		})
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		server := mgmt.HTTP{Handler: mux, TLS: identity.HTTPServerTLS(s.sources[identity.Director]), Log: zap.New(core)}
		go func() { served <- server.Serve(ctx, l) }()
		defer func() {
			stop()
			require.NoError(t, <-served)
		}()
		test(s)
	})
}

// as returns what a host with a certificate of a role asks with; an empty role has none, and "plain" speaks no TLS.
func (s *secured) as(role string) *http.Transport {
	source := s.sources[identity.Role(role)]
	if source == nil {
		roots, err := s.sources[identity.Director].Roots()
		require.NoError(s, err)
		source = identity.Static(nil, roots)
	}
	host := s.net.Host("client")
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return host.DialStream(ctx, addr) },
		TLSClientConfig:   identity.ClientTLS(source, identity.HTTP, identity.Director),
	}
}

// ask makes a request, and returns the status and the body, which has to be a Problem where it was refused.
func (s *secured) ask(role, method, path, token string) (int, string) {
	s.Helper()
	scheme := "https://"
	if role == "plain" {
		scheme = "http://"
	}
	req, err := http.NewRequestWithContext(s.Context(), method, scheme+"server:61001"+path, nil)
	require.NoError(s, err)
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := s.as(role).RoundTrip(req)
	require.NoError(s, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	if resp.StatusCode >= 400 {
		var problem mgmt.Problem
		require.NoError(s, json.Unmarshal(body, &problem))
		require.NotEmpty(s, problem.Error.Code)
		require.Equal(s, resp.StatusCode == http.StatusUnauthorized, resp.Header.Get("WWW-Authenticate") == "Bearer")
		return resp.StatusCode, problem.Error.Message
	}
	return resp.StatusCode, string(body)
}

// TestAccess asks for everything in every way.
func TestAccess(t *testing.T) {
	const (
		health = "GET /readyz"
		read   = "GET /v1/thing"
		act    = "POST /v1/act"
	)
	for name, c := range map[string]struct {
		plainStatus       bool
		role, token, what string
		status            int
		words             string
	}{
		"health of anybody":            {false, "plain", "", health, 200, "ok"},
		"health over TLS":              {false, "", "", "GET /healthz", 200, "ok"},
		"reading":                      {false, "plain", "", read, 401, "CONNECTION_SWAP_MGMT_PLAIN_STATUS=true"},
		"reading over TLS":             {false, "", "", read, 401, "operator.pem"},
		"reading, allowed":             {true, "plain", "", read, 200, `"operator": false`},
		"reading over TLS, allowed":    {true, "", "", read, 200, `"operator": false`},
		"reading as a worker":          {false, "worker", "", read, 403, `role "worker" is not an operator's`},
		"reading as a worker, allowed": {true, "worker", "", read, 200, `"operator": false`},
		"reading as an operator":       {false, "operator", "", read, 200, `"operator": true`},
		"acting":                       {true, "plain", "", act, 401, "come over https"},
		"acting over TLS":              {true, "", "", act, 401, "operator.pem"},
		"acting as a worker":           {true, "worker", "", act, 403, "use operator.pem"},
		"acting as a director":         {true, "director", "", act, 403, "use operator.pem"},
		"acting as a client":           {true, "client", "", act, 403, "use operator.pem"},
		"acting as an operator":        {false, "operator", "", act, 200, "certificate "},
		"a token":                      {false, "", "Bearer " + goodToken, act, 200, "token "},
		"a token to read":              {false, "", "Bearer " + goodToken, read, 200, `"operator": true`},
		"another token":                {true, "", "Bearer " + goodToken + "x", act, 401, "is not one of CONNECTION_SWAP_DIRECTOR_OPERATOR_TOKENS_FILE"},
		"a comment for a token":        {true, "", "Bearer # of the night shift", act, 401, "is not one of"},
		"no token":                     {true, "", "Bearer ", act, 401, `has to be "Bearer"`},
		"a password":                   {true, "", "Basic abc", act, 401, `has to be "Bearer"`},
		"a token for all to see":       {true, "plain", "Bearer " + goodToken, act, 401, "clear text"},
		"a certificate and no token":   {false, "operator", "Bearer x", act, 200, "certificate "},
		"what is not there":            {true, "operator", "", "GET /v1/nothing", 404, "no /v1/nothing here"},
		"another method":               {true, "operator", "", "GET /v1/act", 405, "use POST"},
		"acting on what is read":       {true, "operator", "", "DELETE /v1/thing", 405, "use GET"},
	} {
		t.Run(name, func(t *testing.T) {
			serveSecured(t, c.plainStatus, func(s *secured) {
				t := s.T
				method, path, _ := strings.Cut(c.what, " ")
				status, body := s.ask(c.role, method, path, c.token)
				require.Equal(t, c.status, status, body)
				require.Contains(t, body, c.words)
				refused := s.logged.FilterMessage("refused on the MGMT port").Len()
				require.Equal(t, c.status == 403 || c.status == 401, refused > 0)
				for _, line := range s.logged.All() {
					require.NotContains(t, line.ContextMap(), goodToken)
				}
			})
		})
	}
}

// TestCertificateExpires keeps a connection for longer than the certificate is good with which it was made.
func TestCertificateExpires(t *testing.T) {
	serveSecured(t, false, func(s *secured) {
		t := s.T
		transport := s.as("operator")
		transport.DisableKeepAlives = false
		defer transport.CloseIdleConnections()
		source, err := s.sources[identity.Operator].Certificate()
		require.NoError(t, err)
		leaf, err := x509.ParseCertificate(source.Certificate[0])
		require.NoError(t, err)
		time.Sleep(time.Until(leaf.NotAfter) - time.Minute)
		status := 0
		for range 6 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://server:61001/v1/thing", nil)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			if status = resp.StatusCode; status != http.StatusOK {
				require.Contains(t, string(body), "has expired; renew it")
				break
			}
			time.Sleep(20 * time.Second)
		}
		require.Equal(t, http.StatusForbidden, status)
	})
}

// TestTokenOnTheSameMachine: what a token passes in clear text has to stay on the machine.
func TestTokenOnTheSameMachine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(path, []byte(goodToken), 0o600))
	tokens, err := mgmt.ReadTokens(path, zap.NewNop())
	require.NoError(t, err)
	mux := mgmt.NewMux(fine, noted(fine), mgmt.Access{Tokens: tokens, Log: zap.NewNop()})
	mux.Operate("POST /v1/act", func(http.ResponseWriter, *http.Request) {})
	for addr, want := range map[string]int{"127.0.0.1:5": 200, "[::1]:5": 200, "192.0.2.1:5": 401, "": 401} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/act", nil)
		request.RemoteAddr = addr
		request.Header.Set("Authorization", "Bearer "+goodToken)
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, request)
		require.Equal(t, want, answer.Code, addr)
	}
}

// TestTokensChange writes the file anew: who is in it may act, from then on and no longer.
func TestTokensChange(t *testing.T) {
	serveSecured(t, false, func(s *secured) {
		t := s.T
		may := func(token string) bool {
			status, _ := s.ask("", http.MethodPost, "/v1/act", "Bearer "+token)
			return status == http.StatusOK
		}
		require.True(t, may(goodToken))
		const other = "another-0123456789abcdef"
		require.NoError(t, os.WriteFile(s.tokens, []byte("short\n"+other+"\r\n"), 0o600))
		require.True(t, may(goodToken), "the file is not looked at each time")
		time.Sleep(time.Second)
		require.True(t, may(other))
		require.False(t, may(goodToken))
		require.False(t, may("short"))
		require.Contains(t, s.logged.FilterMessage("operators' tokens").All()[0].ContextMap()["error"], "line 1: a token has 16 characters or more")
		require.NoError(t, os.Remove(s.tokens))
		time.Sleep(time.Second)
		require.False(t, may(other))
		time.Sleep(time.Second)
		require.False(t, may(other))
		require.Equal(t, 2, s.logged.FilterMessage("operators' tokens").Len(), "said once")
		require.NoError(t, os.WriteFile(s.tokens, []byte(goodToken), 0o600))
		time.Sleep(time.Second)
		require.True(t, may(goodToken))
	})
}

// TestTokensThatAreNone begins with files that cannot be used. Each error says what to do.
func TestTokensThatAreNone(t *testing.T) {
	for name, c := range map[string]struct{ content, words string }{
		"short":       {goodToken + "\n0123456789abcde\n", "line 2: a token has 16 characters or more"},
		"with spaces": {"a token with many words", "line 1: a token has no spaces"},
		"of others":   {"0123456789abcdefü", "line 1: a token has no spaces, and only what can be printed in ASCII"},
		"too many":    {strings.Repeat(goodToken+"\n", 1001), "line 1001: more than 1000 tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens")
			require.NoError(t, os.WriteFile(path, []byte(c.content), 0o600))
			_, err := mgmt.ReadTokens(path, zap.NewNop())
			require.ErrorContains(t, err, c.words)
		})
	}
	_, err := mgmt.ReadTokens(filepath.Join(t.TempDir(), "nowhere"), zap.NewNop())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestHandshakesThatFail comes with TLS that is none, that stops, and that is of somebody else's authority. Others are served.
func TestHandshakesThatFail(t *testing.T) {
	serveSecured(t, true, func(s *secured) {
		t := s.T
		dial := func(words string) net.Conn {
			conn, err := s.net.Host("stranger").DialStream(t.Context(), "server:61001")
			require.NoError(t, err)
			_, err = io.WriteString(conn, words)
			require.NoError(t, err)
			return conn
		}
		start := time.Now()
		silent, half, wrong := dial(""), dial("\x16\x03\x01"), dial("\x16GET / HTTP/1.1\r\n\r\n")
		ended := func(conn net.Conn, after time.Duration) {
			t.Helper()
			_, _ = io.Copy(io.Discard, conn)
			if took := time.Since(start); took < after || took > after+100*time.Millisecond {
				t.Errorf("closed after %v, not %v", took, after)
			}
		}
		ended(wrong, 0)
		status, _ := s.ask("", http.MethodGet, "/v1/thing", "")
		require.Equal(t, 200, status)
		ended(silent, 2*time.Second)
		ended(half, 5*time.Second)

		strangers, err := identity.NewDevelopment(time.Now())
		require.NoError(t, err)
		cert, err := strangers[identity.Operator].Certificate()
		require.NoError(t, err)
		conn := tls.Client(dial(""), &tls.Config{Certificates: []tls.Certificate{*cert}, InsecureSkipVerify: true}) //nolint:gosec // a stranger
		if err = conn.Handshake(); err == nil {                                                                     // TLS 1.3: the client learns of it later
			_, err = conn.Read(make([]byte, 1))
		}
		require.ErrorContains(t, err, "certificate")
		require.Equal(t, 3, s.logged.FilterMessage("refused on the MGMT port").Len())
	})
}
