package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/quicnet"
)

const (
	honestClients = 8
	honestTokens  = 40 // of a stream
	harmed        = 20 * time.Second
)

// from is the network as it is from one of this machine's addresses.
type from struct {
	quicnet.OS

	ip net.IP
}

func (f from) DialPacket(_ context.Context, addr string) (net.PacketConn, net.Addr, error) {
	remote, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, nil, err
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: f.ip})
	return conn, remote, err
}

// honest is all clients that mean no harm.
type honest struct {
	cluster *cluster.Cluster

	mu sync.Mutex
	o  outcome
}

// work has clients of connswap and of each version of HTTP connect, read a stream and leave, again and again, for a time; and asks for the director's health.
func (h *honest) work(ctx context.Context, attack string, last time.Duration) (outcome, error) {
	h.o.attack = attack
	log, err := h.logged()
	if err != nil {
		return outcome{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, last)
	defer cancel()
	var all sync.WaitGroup
	for i := range honestClients {
		all.Go(func() {
			for ctx.Err() == nil {
				// The last stream of each may take longer than there is time for others.
				one, stop := context.WithTimeout(context.WithoutCancel(ctx), harmed)
				h.count(h.stream(one, from{ip: net.IPv4(127, 0, 0, byte(10+i))}))
				stop()
			}
		})
	}
	for i, version := range versions {
		all.Go(func() {
			for ctx.Err() == nil {
				one, stop := context.WithTimeout(context.WithoutCancel(ctx), harmed)
				h.count(h.web(one, version, from{ip: net.IPv4(127, 0, 0, byte(30+i))}))
				stop()
			}
		})
	}
	all.Go(func() { h.ask(ctx) })
	start := time.Now()
	all.Wait()
	now, err := h.logged()
	if err != nil {
		return outcome{}, err
	}
	h.o.log = float64(now-log) / time.Since(start).Seconds() / 1024
	return h.o, nil
}

// stream reads one stream on a connection of its own.
func (h *honest) stream(ctx context.Context, nw quicnet.Network) error {
	start := time.Now()
	conn, err := connswap.Dial(ctx, cluster.Addr(h.cluster.Ports[0]), connswap.Options{TLS: h.cluster.TLS, Network: nw})
	if err != nil {
		return fmt.Errorf("dialing: %w", err)
	}
	defer conn.Close() //nolint:errcheck // all is read
	stream, err := conn.Generate(ctx, connswap.Request{Prompt: "The river", MaxTokens: honestTokens})
	if err != nil {
		return err
	}
	var before time.Time
	for _, err := range stream.Tokens() {
		if err != nil {
			return err
		}
		now := time.Now()
		h.token(start, before, now)
		before = now
	}
	return nil
}

// token takes note of a token, before which there was another one, or the start.
func (h *honest) token(start, before, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if before.IsZero() {
		h.o.firsts = append(h.o.firsts, now.Sub(start))
		return
	}
	h.o.gaps = append(h.o.gaps, now.Sub(before))
}

// count counts a stream that ended so.
func (h *honest) count(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.o.streams++
	var refused *connswap.Error
	var status *statusError
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Code == connswap.CodeLimit, errors.As(err, &status) && status.status == http.StatusTooManyRequests:
		h.o.refused++
		h.o.reason = err.Error()
	default:
		h.o.failed++
		h.o.reason = err.Error()
	}
}

// ask asks for the director's health and memory a few times each second, on new connections.
func (h *honest) ask(ctx context.Context) {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		resp, err := client.Get("http://" + cluster.Addr(h.cluster.Ports[1]) + "/readyz")
		ok := err == nil && resp.StatusCode == http.StatusOK
		if err == nil {
			_ = resp.Body.Close()
		}
		memory, _ := cluster.Memory(h.cluster.Director.Process.Pid) // 0 where it has died, which is told otherwise
		h.mu.Lock()
		h.o.asked++
		if ok {
			h.o.ready++
		}
		h.o.memory = max(h.o.memory, memory)
		h.mu.Unlock()
		time.Sleep(200 * time.Millisecond)
	}
}

// logged returns how long the director's log is.
func (h *honest) logged() (int64, error) {
	info, err := os.Stat(filepath.Join(h.cluster.Dir, "director.log"))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
