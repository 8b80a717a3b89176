package quicnet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connswap/connswap/shared/quicnet"
)

// host answers for one address.
type host struct {
	after time.Duration // until it answers
	err   error         // instead of a connection
	deaf  bool          // goes on until its answer, whatever its context says
}

// hosts are dialled, and remember it.
type hosts struct {
	of    map[string]host
	start time.Time

	mu     sync.Mutex
	tried  []string // "address time"
	closed []string
}

// line is a connection.
type line struct {
	hosts *hosts
	addr  string
}

func (l *line) Close() error {
	l.hosts.mu.Lock()
	defer l.hosts.mu.Unlock()
	l.hosts.closed = append(l.hosts.closed, l.addr)
	return nil
}

func (h *hosts) dial(ctx context.Context, addr string) (*line, error) {
	h.mu.Lock()
	h.tried = append(h.tried, fmt.Sprint(addr, " ", time.Since(h.start)))
	h.mu.Unlock()
	to := h.of[addr]
	if to.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(to.after):
	}
	if to.err != nil {
		return nil, to.err
	}
	return &line{h, addr}, nil
}

var errRefused, errFull = errors.New("refused"), errors.New("full")

func TestFirst(t *testing.T) {
	const ms, never = time.Millisecond, time.Hour
	for name, test := range map[string]struct {
		of     map[string]host
		want   string // the address, or the error
		tried  []string
		closed []string
		after  time.Duration
	}{
		"the first one": {
			map[string]host{"a": {after: 10 * ms}, "b": {}}, "a", []string{"a 0s"}, nil, 10 * ms,
		},
		"the next one after a while": {
			map[string]host{"a": {after: never}, "b": {after: never}, "c": {after: 20 * ms}},
			"c",
			[]string{"a 0s", "b 250ms", "c 500ms"},
			nil, 520 * ms,
		},
		"the next one at once where one fails": {
			map[string]host{"a": {after: 5 * ms, err: errRefused}, "b": {err: errRefused}, "c": {after: 20 * ms}},
			"c",
			[]string{"a 0s", "b 5ms", "c 5ms"},
			nil, 25 * ms,
		},
		"an earlier one that is slow": {
			map[string]host{"a": {after: 300 * ms}, "b": {after: never}}, "a", []string{"a 0s", "b 250ms"}, nil, 300 * ms,
		},
		"what comes too late is closed": {
			map[string]host{"a": {after: 400 * ms, deaf: true}, "b": {after: 50 * ms}},
			"b",
			[]string{"a 0s", "b 250ms"},
			[]string{"a"},
			400 * ms,
		},
		"none": {
			map[string]host{"a": {after: 400 * ms, err: errRefused}, "b": {after: 10 * ms, err: errFull}, "c": {err: errRefused}},
			"a, c: refused; b: full",
			[]string{"a 0s", "b 250ms", "c 260ms"},
			nil, 400 * ms,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hosts{of: test.of, start: time.Now()}
				conn, err := quicnet.First(t.Context(), []string{"a", "b", "c"}[:len(test.of)], h.dial)
				got := ""
				if err != nil {
					got = err.Error()
				} else {
					got = conn.addr
				}
				if after := time.Since(h.start); got != test.want || after != test.after {
					t.Errorf("got %q after %v, want %q after %v", got, after, test.want, test.after)
				}
				if !slices.Equal(h.tried, test.tried) || !slices.Equal(h.closed, test.closed) {
					t.Errorf("tried %q, closed %q, want %q and %q", h.tried, h.closed, test.tried, test.closed)
				}
				if strings.Contains(test.want, ":") && !(errors.Is(err, errRefused) && errors.Is(err, errFull)) {
					t.Errorf("the chain of %v has not every cause", err)
				}
			})
		})
	}
}

// When the caller gives up, nothing is begun any more, and the error says how far it came.
func TestFirstEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{of: map[string]host{"a": {after: time.Millisecond, err: errRefused}, "b": {after: time.Hour}}, start: time.Now()}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := quicnet.First(ctx, []string{"a", "b", "c"}, h.dial)
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "a: refused; b: context deadline exceeded" {
			t.Errorf("got %v", err)
		}
		if after := time.Since(h.start); after != 100*time.Millisecond || len(h.tried) != 2 {
			t.Errorf("tried %q in %v", h.tried, after)
		}
		if _, err := quicnet.First(ctx, []string{"a"}, h.dial); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that has ended: %v", err)
		}
		if _, err := quicnet.First(t.Context(), nil, h.dial); err == nil {
			t.Error("without an address there is a connection")
		}
	})
}

// A family of IP that leads nowhere holds up the other one by one delay only; what a name stands for twice is tried once.
func TestFirstInterleavesFamilies(t *testing.T) {
	for name, test := range map[string]struct{ addrs, want []string }{
		"both": {
			[]string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1", "192.0.2.2:1"},
			[]string{"[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1", "[2001:db8::3]:1"},
		},
		"the resolver's first stays first": {
			[]string{"192.0.2.1:1", "192.0.2.2:1", "[::ffff:192.0.2.3]:1", "[2001:db8::1%eth0]:1"},
			[]string{"192.0.2.1:1", "[2001:db8::1%eth0]:1", "192.0.2.2:1", "[::ffff:192.0.2.3]:1"},
		},
		"one": {[]string{"192.0.2.2:1", "192.0.2.1:1", "192.0.2.2:1"}, []string{"192.0.2.2:1", "192.0.2.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hosts{of: map[string]host{}}
				for _, addr := range test.addrs {
					h.of[addr] = host{err: errRefused}
				}
				_, err := quicnet.First(t.Context(), test.addrs, func(ctx context.Context, addr string) (*line, error) {
					h.tried = append(h.tried, addr) // one after the other, since each fails at once
					return nil, errRefused
				})
				if !slices.Equal(h.tried, test.want) || !errors.Is(err, errRefused) {
					t.Errorf("tried %q, want %q; got %v", h.tried, test.want, err)
				}
			})
		})
	}
	t.Run("a name with very many", func(t *testing.T) {
		var addrs []string
		for n := range 1000 {
			addrs = append(addrs, fmt.Sprintf("192.0.2.%d:%d", n%250, n))
		}
		tried := 0
		_, err := quicnet.First(t.Context(), addrs, func(context.Context, string) (*line, error) {
			tried++
			return nil, errRefused
		})
		if tried != 64 || err == nil {
			t.Errorf("tried %d: %v", tried, err)
		}
	})
}

// phoneBook resolves one name.
type phoneBook struct {
	quicnet.Network
	addrs []string
}

func (b phoneBook) Resolve(_ context.Context, target string) ([]string, error) {
	if target != "directors:1" {
		return nil, errors.New("no such host")
	}
	return b.addrs, nil
}

func TestDialByName(t *testing.T) {
	h := &hosts{of: map[string]host{"192.0.2.1:1": {err: errRefused}, "192.0.2.2:1": {}}}
	book := phoneBook{addrs: []string{"192.0.2.1:1", "192.0.2.2:1"}}
	if conn, err := quicnet.DialByName(t.Context(), book, "directors:1", h.dial); err != nil || conn.addr != "192.0.2.2:1" {
		t.Errorf("got %v, %v", conn, err)
	}
	if _, err := quicnet.DialByName(t.Context(), book, "nowhere:1", h.dial); err == nil || err.Error() != "no such host" {
		t.Errorf("got %v", err)
	}
	if _, err := quicnet.DialByName(t.Context(), phoneBook{}, "directors:1", h.dial); err == nil {
		t.Error("a name without addresses leads somewhere")
	}
}
