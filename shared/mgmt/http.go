package mgmt

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/telemetry"
)

// Bounds on one HTTP exchange. Whoever takes longer to ask (not to read the answer) clears the deadline by
// http.ResponseController. How slowly an answer may be read is bounded for each chunk, see conn.
const (
	readHeaderTimeout = 2 * time.Second
	readTimeout       = 10 * time.Second
	idleTimeout       = 30 * time.Second
	shutdownTimeout   = time.Second
	maxHeader         = 12 << 10 // to which net/http adds 4 KiB
	maxBody           = 16 << 10
)

// HTTP serves the TCP side of a MGMT port.
type HTTP struct {
	Handler http.Handler
	TLS     *tls.Config // for those who speak it, see identity.HTTPServerTLS; nil for nobody
	Log     *zap.Logger

	Descriptors uint64 // that the process may have; optional: what the system says
}

// Serve serves HTTP on l until ctx ends, and closes l. When it returns no connection and no goroutine of the
// server is left. The error is nil unless l failed.
//
// Connections and what is asked on them are bounded. Where there are too many connections the idle ones are closed first,
// so that a question for health, which costs next to nothing, is always answered.
func (h *HTTP) Serve(ctx context.Context, l net.Listener) error {
	var open sync.WaitGroup
	table := newConnections(cmp.Or(h.Descriptors, Descriptors()))
	errorLog, err := zap.NewStdLogAt(h.Log.With(telemetry.From("")), zap.WarnLevel)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           http.MaxBytesHandler(h.Handler, maxBody),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, tracked(c))
		},
		ErrorLog: errorLog,
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state { //nolint:exhaustive // only the first and the last states count
			case http.StateNew:
				open.Add(1)
			case http.StateHijacked, http.StateClosed:
				open.Done()
			}
			table.changed(tracked(c), state)
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		shutDown(ctx, server)
	})
	accepting, cancel := context.WithCancel(ctx)
	defer cancel()
	bounded := &listener{Listener: l, ctx: accepting, table: table, tls: h.TLS, log: h.Log}
	bounded.start()
	err = server.Serve(bounded)
	cancel()
	if stop() { // Serve failed by itself
		shutDown(ctx, server)
	} else {
		<-stopped
	}
	bounded.wait()
	open.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err)
}

// shutDown lets answers under way go out, for a moment.
func shutDown(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // what it could not close is closed already
	}
}

// Healthz asks the /readyz of the process that was configured to listen on addr ("host:port", host may be
// empty), from the same machine. The error says why it is not ready.
func Healthz(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address to ask: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	reason, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, reason)
	}
	return err
}
