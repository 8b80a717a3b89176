package worker_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/internal/fakedirector"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// get asks the worker's MGMT port over HTTP.
func (b *bench) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	return b.getFrom(t, mgmtAddr, path)
}

func (b *bench) getFrom(t *testing.T, addr, path string) (code int, body string) {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return b.from.DialStream(ctx, addr)
		},
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (b *bench) status(t *testing.T) worker.Status {
	t.Helper()
	return b.statusOf(t, mgmtAddr)
}

func (b *bench) statusOf(t *testing.T, addr string) worker.Status {
	t.Helper()
	var status worker.Status
	if code, body := b.getFrom(t, addr, "/v1/status"); code != http.StatusOK {
		t.Fatalf("got %d: %s", code, body)
	} else if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	return status
}

func TestReadiness(t *testing.T) {
	cfg := settings()
	cfg.FailureMode = "error"
	cfg.FailureMin, cfg.FailureMax = time.Hour, time.Hour
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		ready := func(want string) {
			t.Helper()
			code, body := b.get(t, "/readyz")
			if (code == http.StatusOK) != (want == "ok") || !strings.Contains(body, want) {
				t.Errorf("got %d %q, want %q", code, body, want)
			}
			reply, err := mgmt.Health(t.Context(), b.from, mgmtAddr,
				identity.ClientTLS(b.TLS[identity.Operator], wire.ALPNMgmt, identity.Worker))
			if err != nil || reply.GetReady() != (want == "ok") || reply.GetName() != "worker-a" || reply.GetRole() != "worker" {
				t.Errorf("got %v, %v", reply, err)
			}
			if code, body := b.get(t, "/livez"); code != http.StatusOK {
				t.Errorf("not alive: %d %q", code, body)
			}
		}
		<-b.mgmt.Heartbeats
		ready("ok")
		b.worker.FailNow()
		time.Sleep(time.Second)
		ready("simulated failure after")
		time.Sleep(cfg.FailureRecovery)
		ready("ok")

		b.mgmt.Close()
		time.Sleep(time.Second)
		ready("not registered at any director")
		b.mgmt = b.Listen(t, b.from)
		<-b.mgmt.Heartbeats
		ready("ok")
	})
}

func TestClientsMayNotAskForHealth(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		reply, err := mgmt.Health(t.Context(), b.from, mgmtAddr,
			identity.ClientTLS(b.TLS[identity.Client], wire.ALPNMgmt, identity.Worker))
		if err == nil {
			t.Errorf("got %v", reply)
		}
	})
}

func TestStatus(t *testing.T) {
	cfg := settings()
	cfg.TokenInterval = time.Second
	cfg.Capacity = 2
	run(t, cfg, worker.Deps{}, func(t *testing.T, b *bench) {
		l, _ := b.Open(t, b.from, userAddr)
		bad := attach(4, 1, 0)
		bad.Prefix = &wirepb.Prefix{Text: []byte("x")}
		l.Send(t, bad)
		fakedirector.Next[*wirepb.Refused](t, l)
		l.Send(t, attach(1, 3, 0), attach(2, 1, 0), attach(3, 1, 0))
		time.Sleep(2500 * time.Millisecond)
		status := b.status(t)
		if len(status.Sessions) != 2 || !status.Available || status.Capacity != 2 || status.Directors != 1 {
			t.Fatalf("got %+v", status)
		}
		first := status.Sessions[0]
		if first.ID != 1 || first.Epoch != 3 || first.Sequence != 3 || first.ConnectionID != "conn-1" || first.Director != "director-1" {
			t.Errorf("got %+v", first)
		}
		l.Send(t, &wirepb.Cancel{Session: 1, Epoch: 3}, &wirepb.Cancel{Session: 2, Epoch: 1})
		time.Sleep(time.Second)
		status = b.status(t)
		if len(status.Sessions) != 0 || status.Attaches != 4 || status.Cancels != 2 || status.Tokens != 6 ||
			status.Refusals[wire.CodeCapacity] != 1 || status.Refusals[wire.CodeInvalid] != 1 {
			t.Errorf("got %+v", status)
		}
		l.Close()
	})
}

// TestUnfinishedHandshakesAreShown has a peer vanish between its first packets and its last ones.
func TestUnfinishedHandshakesAreShown(t *testing.T) {
	run(t, settings(), worker.Deps{}, func(t *testing.T, b *bench) {
		stranger := b.Net.Host("stranger")
		tlsConf := identity.ClientTLS(b.TLS[identity.Director], wire.ALPNLink, identity.Worker)
		dialled := make(chan error, 1)
		go func() {
			_, err := quicnet.Dial(t.Context(), stranger, userAddr, tlsConf, quicnet.LinkConfig(0))
			dialled <- err
		}()
		time.Sleep(1500 * time.Microsecond) // in the bubble: the worker's answer is under way
		stranger.Isolate()
		if h := b.status(t).Handshakes; h["user"].Open != 1 || h["mgmt"].Open != 0 {
			t.Errorf("shown are %+v", h)
		}
		if err := <-dialled; err == nil {
			t.Error("the handshake is complete")
		}
		time.Sleep(5 * time.Second)
		if h := b.status(t).Handshakes; h["user"].Open != 0 {
			t.Errorf("in the end there are %+v", h)
		}
	})
}
