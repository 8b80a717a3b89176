package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/e2e/internal/cluster"
)

// httpDefault is the growth from one stream to 5,000, each of a client of its own.
const httpDefault = "1/50,100/50,1000/10,5000/2"

// httpSystemsDefault are what is compared over HTTP: the project, nothing in its place, and reverse proxies.
const httpSystemsDefault = "connswap,direct,httputil,nginx,haproxy"

// proxies are the reverse proxies of others, each with its configuration: of one thread, with buffering off, and connections that
// are kept. Their verbs are the places of the connections, of the port, and of that of the worker.
var proxies = map[string]struct {
	args   []string
	config string
}{
	"nginx": {[]string{"-p", ".", "-e", "stderr", "-c"}, `
daemon off; master_process off; pid nginx.pid;
events { worker_connections %[1]d; }
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	keepalive_requests 1000000;
	server {
		listen %[2]s backlog=4096;
		location / {
			proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection "";
			proxy_buffering off; proxy_read_timeout 1h;
		}
	}
	upstream worker { server %[3]s; keepalive 64; }
}
`},
	"haproxy": {[]string{"-db", "-f"}, `
global
	nbthread 1
defaults
	mode http
	option http-no-delay
	timeout connect 5s
	timeout client 1h
	timeout server 1h
frontend clients
	bind %[2]s
	default_backend worker
backend worker
	server a %[3]s
`},
}

// overHTTP compares the project's door for HTTP with reverse proxies.
func (o options) overHTTP(ctx context.Context, r *report) error {
	loads, err := parseAll(o.https, parseHTTPLoad)
	if err != nil {
		return fmt.Errorf("-http: %w", err)
	}
	systems := slices.DeleteFunc(slices.Clone(o.httpSystems), func(name string) bool {
		if _, needed := proxies[name]; !needed {
			return false
		}
		_, err := exec.LookPath(name)
		if err != nil {
			fmt.Println("left out:", err)
		}
		return err != nil
	})
	for i, load := range loads {
		if err := descriptors(load.Streams); err != nil {
			fmt.Println("left out:", err)
			loads = loads[:i]
			break
		}
	}
	return o.compare(ctx, r, contest{class: "http", systems: systems, measures: httpMeasures, assemble: o.assembleHTTP}, loads)
}

// parseHTTPLoad reads streams/rate.
func parseHTTPLoad(text string) (part.Load, error) {
	streams, rate, ok := strings.Cut(text, "/")
	if !ok || strings.Contains(rate, "/") {
		return part.Load{}, fmt.Errorf("%q: want streams/tokens per second of each", text)
	}
	return part.ParseLoad(streams + "/" + streams + "/" + rate)
}

// descriptors lets this process, and all that it starts, have as many as a proxy needs for so many streams.
func descriptors(streams int) error {
	need := uint64(2*streams + 200)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Max < need {
		return fmt.Errorf("%d streams need %d descriptors, a process may have %d: raise the hard limit (ulimit -Hn)", streams, need, limit.Max)
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

func (o options) assembleHTTP(ctx context.Context, name string, load part.Load) (*system, error) {
	s := &system{probed: true, streams: load.Streams}
	name, bin, _ := strings.Cut(name, "=")
	var target string
	var err error
	if name == "connswap" {
		target, err = s.startOwn(ctx, cmp.Or(bin, o.bin), load)
	} else {
		target, err = s.startProxied(ctx, name, load)
	}
	if err == nil && s.director != nil {
		s.idle, err = cluster.Memory(s.director.Process.Pid)
	}
	if err == nil {
		s.client, err = s.start(ctx, "http/client", part.Setup{Load: load, Target: target})
	}
	if err != nil {
		s.stop()
	}
	return s, err
}

// startProxied starts a server of streams, and a proxy in front of it. It returns where clients find them.
func (s *system) startProxied(ctx context.Context, name string, load part.Load) (target string, err error) {
	if err := s.place(); err != nil {
		return "", err
	}
	ports, err := cluster.FreePorts(2)
	if err != nil {
		return "", err
	}
	worker, addr := cluster.Addr(ports[0]), cluster.Addr(ports[1])
	if s.worker, err = s.start(ctx, "http/worker", part.Setup{Load: load, Listen: []string{worker}}); err != nil {
		return "", err
	}
	switch name {
	case direct:
		return worker, nil
	case "httputil":
		relay, err := s.start(ctx, "http/relay", part.Setup{Load: load, Listen: []string{addr}, Target: worker})
		if err != nil {
			return "", err
		}
		s.director = relay.Cmd
		return addr, nil
	}
	proxy, ok := proxies[name]
	if !ok {
		return "", fmt.Errorf("there is no system %q", name)
	}
	config := filepath.Join(s.dir, name+".conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, proxy.config, 4*load.Streams+1000, addr, worker), 0o600); err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return "", err
	}
	defer log.Close() //nolint:errcheck // the process has a handle of its own
	cmd := exec.CommandContext(ctx, name, append(slices.Clone(proxy.args), config)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	s.director = cmd
	s.ends = append(s.ends, func() { _ = cluster.Kill(cmd) })
	if err := awaitPort(ctx, addr); err != nil {
		said, _ := os.ReadFile(log.Name()) // there is an error already
		return "", fmt.Errorf("%s: %w\n%s", name, err, said)
	}
	return addr, nil
}

// awaitPort waits until somebody listens.
func awaitPort(ctx context.Context, addr string) error {
	for deadline := time.Now().Add(waitTimeout); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}
