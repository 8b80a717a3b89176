package mgmt_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/mgmt"
)

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var unready error
	var note string
	mux := mgmt.NewMux(func() error { return nil }, func() (string, error) { return note, unready }, anybody())
	mux.Document("/v1/thing", func(*http.Request) (any, error) { return map[string]int{"answer": 42}, nil })
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- (&mgmt.HTTP{Handler: mux, Log: zap.NewNop()}).Serve(ctx, l) }()

	if err := mgmt.Healthz(ctx, l.Addr().String()); err != nil {
		t.Errorf("ready: %v", err)
	}
	unready = errors.New("not registered at any director")
	if err := mgmt.Healthz(ctx, l.Addr().String()); err == nil || !strings.Contains(err.Error(), unready.Error()) {
		t.Errorf("not ready: got %v", err)
	}
	unready, note = nil, "the certificate expires in 3 days"
	if err := mgmt.Healthz(ctx, l.Addr().String()); err != nil {
		t.Errorf("ready, with a note: %v", err)
	}
	if body := getText(t, "http://"+l.Addr().String()+"/readyz"); body != "ok; the certificate expires in 3 days\n" {
		t.Errorf("got %q", body)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"", "0.0.0.0"} {
		if err := mgmt.Healthz(ctx, net.JoinHostPort(host, port)); err != nil {
			t.Errorf("asking a process that listens on %q: %v", host, err)
		}
	}
	var thing map[string]int
	getJSON(t, "http://"+l.Addr().String()+"/v1/thing", &thing)
	if thing["answer"] != 42 {
		t.Errorf("got %v", thing)
	}

	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := mgmt.Healthz(t.Context(), l.Addr().String()); err == nil {
		t.Error("still answers after Serve has returned")
	}
}

func TestServeReportsAFailedListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (&mgmt.HTTP{Handler: http.NewServeMux(), Log: zap.NewNop()}).Serve(t.Context(), l); err == nil {
		t.Error("no error")
	}
}

func getJSON(t *testing.T, url string, v any) {
	t.Helper()
	resp, err := http.Get(url) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		t.Fatal(err)
	}
}

func getText(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(text)
}
