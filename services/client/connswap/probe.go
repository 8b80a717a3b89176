package connswap

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/shared/quicnet"
)

const (
	// maxProbes bounds how often one silence is asked about. QUIC itself repeats a probe that nobody acknowledges.
	maxProbes = 3
	// leastSilence is too short to be asked about, however quick the tokens are.
	leastSilence = 100 * time.Millisecond
	// strange is how often the prober looks while no stream has a rhythm yet.
	strange = 500 * time.Millisecond
	// looks is how often the prober looks within the time after which it asks.
	looks = 2
)

// prober asks the director for a sign of life when the tokens of a connection stop coming and nothing else comes either. A
// client that only reads sends nothing while it gets nothing: where a NAT has forgotten it, the director's packets go
// nowhere until the next keep-alive shows it the client's new address (RFC 9000 §9.3), which takes seconds. A probe shows it
// as soon as the silence has become unusual. It is an empty DATAGRAM frame (RFC 9221), the one thing that quic-go sends at
// once and that means nothing; a director that has not offered to take those gets none.
//
// Until the next token it sends maxProbes at most, each after twice the silence of the one before. It is safe for concurrent
// use. It owns no goroutine, but a timer while streams are open.
type prober struct {
	conn  *quicnet.Conn
	most  time.Duration // of silence: about a longer one QUIC's keep-alive asks; 0 if the director takes no probes
	start time.Time
	token atomic.Int64 // when the last token was read, as time since start

	mu      sync.Mutex
	streams map[*Stream]struct{} // open
	timer   *time.Timer          // nil before the first stream
	last    time.Duration        // token, at the last look
	packets uint64               // received, at the last look
	sign    time.Duration        // the last sign of life: a token, or the look that found that something else had come; or the last probe
	probes  int                  // since the last token
}

// newProber returns the prober of a connection whose handshake is complete.
func newProber(conn *quicnet.Conn, keepAlive time.Duration) *prober {
	p := &prober{conn: conn, start: time.Now(), streams: make(map[*Stream]struct{})}
	if conn.ConnectionState().SupportsDatagrams.Remote {
		p.most = keepAlive
	}
	return p
}

// begin says that a stream is open, until end is called, which has to be done once.
func (p *prober) begin(s *Stream) (end func()) {
	if p.most <= 0 {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams[s] = struct{}{}
	switch {
	case p.timer == nil:
		p.timer = time.AfterFunc(min(strange, p.most), p.look)
	case len(p.streams) == 1:
		p.timer.Reset(min(strange, p.most))
	}
	return func() { p.end(s) }
}

func (p *prober) end(s *Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, s)
	if len(p.streams) == 0 {
		p.timer.Stop()
	}
}

// heard says that a token was read.
func (p *prober) heard(now time.Time) { p.token.Store(int64(now.Sub(p.start))) }

func (p *prober) look() {
	if p.due() {
		_ = p.conn.SendDatagram(nil) // fails only where the connection has
	}
}

// due reports whether a probe is to be sent now, and sets the timer to when that is to be asked next.
func (p *prober) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.streams) == 0 || p.conn.Context().Err() != nil {
		return false
	}
	limit := p.limit()
	if limit == 0 || limit >= p.most {
		p.timer.Reset(min(cmp.Or(limit, strange), p.most))
		return false
	}
	now, packets := time.Since(p.start), p.conn.ConnectionStats().PacketsReceived
	switch last := time.Duration(p.token.Load()); {
	case last != p.last:
		p.last, p.probes, p.sign = last, 0, max(last, now-limit/looks) // what came after the token is not known yet
	case packets != p.packets:
		p.sign = now
	}
	p.packets = packets
	ask := p.sign + limit<<p.probes
	due := p.probes < maxProbes && now >= ask
	if due {
		p.probes++
		p.sign, ask = now, now+limit<<p.probes
	}
	step := limit / looks << p.probes
	if now < ask {
		step = min(step, ask-now)
	}
	p.timer.Reset(min(step, p.most))
	return due
}

// limit returns the silence that is unusual for the quickest of the open streams, zero while none has a rhythm.
func (p *prober) limit() time.Duration {
	var limit time.Duration
	for s := range p.streams {
		if d := time.Duration(s.patience.Load()); d > 0 && (limit == 0 || d < limit) {
			limit = d
		}
	}
	if limit == 0 {
		return 0
	}
	return max(limit, leastSilence)
}
