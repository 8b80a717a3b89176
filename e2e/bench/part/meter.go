package part

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
)

// Meter counts what a client's readers get while it records.
type Meter struct {
	recording atomic.Bool
	since     time.Time
	readers   []reader
	eventSize atomic.Int64 // of a token, where that can be seen
}

// reader checks one stream after the other, and takes the times. One goroutine uses it; the meter looks at its counts.
type reader struct {
	meter    *Meter
	phase    uint64        // tells streams apart that are timed at different tokens
	sequence uint64        // of the last token of the present stream
	all      atomic.Uint64 // tokens since the start
	tokens   atomic.Uint64 // while recording
	delays   histogram     // while recording
}

func newMeter(readers int) *Meter {
	m := &Meter{readers: make([]reader, readers)}
	for i := range m.readers {
		m.readers[i].meter, m.readers[i].phase = m, uint64(i)
	}
	return m
}

// begin begins the next stream.
func (r *reader) begin() { r.sequence = 0 }

// take gives r a token. One that is not the next is an error: nobody is fast by losing some.
func take[T text](r *reader, text T) error {
	sequence, err := sequenceOf(text)
	if err != nil {
		return err
	}
	if sequence != r.sequence+1 {
		return fmt.Errorf("token %d after %d", sequence, r.sequence)
	}
	r.sequence = sequence
	r.all.Add(1)
	if !r.meter.recording.Load() {
		return nil
	}
	r.tokens.Add(1)
	if (sequence+r.phase)%sampled != 0 {
		return nil
	}
	due, err := dueOf(text)
	if due != 0 {
		r.delays.add(time.Duration(time.Now().UnixNano() - due))
	}
	return err
}

// sampled is of how many tokens of a stream one is timed. Each step has streams whose turn it is.
const sampled = 8

// end checks that the stream was whole.
func (r *reader) end() error {
	if r.sequence != streamTokens {
		return fmt.Errorf("a stream ended after token %d of %d", r.sequence, streamTokens)
	}
	return nil
}

// flowing reports whether every reader has had some tokens.
func (m *Meter) flowing() bool {
	for i := range m.readers {
		if m.readers[i].all.Load() < 3 {
			return false
		}
	}
	return true
}

func (m *Meter) record() {
	m.since = time.Now()
	m.recording.Store(true)
}

func (m *Meter) stop() Result {
	m.recording.Store(false)
	result := Result{Seconds: time.Since(m.since).Seconds(), Event: m.eventSize.Load()}
	var sum histogram
	for i := range m.readers {
		result.Tokens += m.readers[i].tokens.Load()
		sum.merge(&m.readers[i].delays)
	}
	result.P50, result.P99 = sum.quantile(0.50), sum.quantile(0.99)
	return result
}

// histogram counts durations of up to an hour, in buckets that are an eighth of their power of two wide.
type histogram [31 * 8]atomic.Uint32

func bucket(d time.Duration) int {
	us := uint64(max(8, d.Microseconds()))
	power := bits.Len64(us)
	return min(len(histogram{})-1, (power-4)*8+int(us>>(power-4)&7))
}

func (h *histogram) add(d time.Duration) { h[bucket(d)].Add(1) }

func (h *histogram) merge(other *histogram) {
	for i := range other {
		h[i].Add(other[i].Load())
	}
}

// quantile returns the middle of the bucket that has it, in milliseconds; 0 of nothing.
func (h *histogram) quantile(q float64) float64 {
	var all, sum uint64
	for i := range h {
		all += uint64(h[i].Load())
	}
	for i := range h {
		if sum += uint64(h[i].Load()); float64(sum) > q*float64(all) {
			return (float64(8+i%8) + 0.5) * float64(uint64(1)<<(i/8)) / 1000
		}
	}
	return 0
}
