package telemetry

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/connswap/connswap/shared/peer"
)

const (
	samplePeriod = 10 * time.Second
	maxSamples   = 1024 // kinds and addresses that are told apart in a period; all others count as one
)

// Of the lines of one kind (the message) and from one address so many are written in a samplePeriod. The others are
// counted, and one line at its end says how many there were.
const (
	fewLines  = 5   // From: what costs a stranger nothing
	manyLines = 100 // Often: what everybody does, at another rate
	always    = math.MaxInt64
)

// From is a field that is not shown. It says that a line was caused by whoever is at an address ("host:port") and can
// cause as many as it likes: only a few are written, the rest is counted. It goes with a line, or into a logger.
func From(addr string) zap.Field { return sampleField(hostOf(addr), fewLines) }

// Often is From for lines that belong to an ordinary life: they are left out only where they come by the hundred.
func Often(addr string) zap.Field { return sampleField(hostOf(addr), manyLines) }

// Always has a line written although its logger has From or Often.
func Always() zap.Field { return sampleField("", always) }

// sampleField is a field that encoders skip.
func sampleField(host string, most int64) zap.Field {
	return zap.Field{Type: zapcore.SkipType, String: host, Integer: most}
}

// hostOf returns the address without its port. Of an IPv6 address it is the network: one host has all of it.
func hostOf(addr string) string {
	parsed, err := netip.ParseAddrPort(addr)
	if err != nil {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			addr = host
		}
		return cmp.Or(addr, "unknown")
	}
	return peer.Name(peer.Network(parsed.Addr()))
}

// origin is what a sampleField says: who causes a line, and how many are written; without a limit if that is 0.
type origin struct {
	host string
	most int64
}

func originIn(fields []zapcore.Field) (origin, bool) {
	for _, f := range fields {
		if f.Type == zapcore.SkipType && f.Integer > 0 {
			return origin{f.String, f.Integer}, true
		}
	}
	return origin{}, false
}

// sampled is a core that leaves out what From and Often allow it to. What With returns shares its samples.
type sampled struct {
	zapcore.Core

	samples *samples
	origin  origin       // of With, if there was one
	plain   zapcore.Core // as it was before With got the origin
}

func (c *sampled) With(fields []zapcore.Field) zapcore.Core {
	with := *c
	with.Core = c.Core.With(fields)
	if own, ok := originIn(fields); ok {
		with.origin, with.plain = own, c.Core
	}
	return &with
}

func (c *sampled) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *sampled) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	from, plain := c.origin, c.plain
	if own, ok := originIn(fields); ok {
		if from = own; plain == nil {
			plain = c.Core
		}
	}
	if from.host != "" && !c.samples.admit(from, plain, entry) {
		return nil
	}
	return c.Core.Write(entry, fields)
}

// samples counts the lines of this period, by kind and host. A timer, armed by the first of them, ends the period.
type samples struct {
	muted *atomic.Uint64 // of all periods

	mu    sync.Mutex
	kinds map[sampleKey]*sample
	timer *time.Timer // nil while nothing was counted
}

type sampleKey struct{ message, host string }

// sample is how often something was seen in this period.
type sample struct {
	seen, more int64
	core       zapcore.Core  // where to say so
	entry      zapcore.Entry // the last one that was left out
}

func newSamples(muted *atomic.Uint64) *samples {
	return &samples{muted: muted, kinds: map[sampleKey]*sample{}}
}

// others is where lines are counted that there is no room to tell apart.
var others = sampleKey{"more lines of other kinds", "elsewhere"}

// admit counts a line, and reports whether it is to be written.
func (s *samples) admit(from origin, core zapcore.Core, entry zapcore.Entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		s.timer = time.AfterFunc(samplePeriod, s.flush)
	}
	key := sampleKey{entry.Message, from.host}
	if s.kinds[key] == nil && len(s.kinds) >= maxSamples {
		key = others
	}
	k := s.kinds[key]
	if k == nil {
		k = &sample{}
		s.kinds[key] = k
	}
	if k.seen++; k.seen <= from.most {
		return true
	}
	k.more++
	k.core, k.entry = core, entry
	s.muted.Add(1)
	return false
}

// flush ends the period, and says what was left out.
func (s *samples) flush() {
	s.mu.Lock()
	ended := s.kinds
	s.kinds = map[sampleKey]*sample{}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.mu.Unlock()
	for key, k := range ended {
		if k.more == 0 {
			continue
		}
		entry := k.entry
		entry.Time, entry.Message = time.Now(), fmt.Sprintf("%s: %d more like this", key.message, k.more)
		_ = k.core.Write(entry, []zap.Field{ // an Output never fails
			zap.String("host", key.host), zap.Int64("more", k.more), zap.Duration("within", samplePeriod),
		})
	}
}
