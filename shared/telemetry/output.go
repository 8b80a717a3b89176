package telemetry

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	queueBytes = 1 << 20                // lines that wait for whoever reads them, those that are being written among them
	noteBytes  = 4 << 10                // room beyond, for the notes of what was lost
	spareBytes = 64 << 10               // a larger buffer is not kept
	writeBytes = 4 << 10                // of one write: a pipe takes as much in one piece (PIPE_BUF)
	fullPause  = 20 * time.Millisecond  // where a pipe is full, and says so
	closeBound = 500 * time.Millisecond // for what is queued when the process ends
)

// Output takes the lines of a service and never makes it wait: it does not block, does not fail, and holds a bounded
// number of bytes. What whoever reads the lines is too slow for is dropped and counted; so is what cannot be written.
// Once lines flow again one of them says how many were lost, and for how long.
//
// It owns one goroutine, which writes; Close waits for that, but not longer than closeBound. All methods may be called
// from any goroutine.
type Output struct {
	w                               io.Writer
	written, dropped, failed, muted atomic.Uint64
	samples                         *samples
	torn                            bool // a write ended within a line; owned by the goroutine

	wake      chan struct{} // capacity 1: there is something to write, or the end
	abandoned chan struct{} // closed when Close waits no longer
	done      chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	queued []byte    // whole lines
	size   int       // bytes of queued, and of what is being written
	gap    gap       // what was lost since the last note
	note   func(gap) // logs a note; nil before there is a logger
	closed bool      // nothing is taken any more
}

// gap is what was lost.
type gap struct {
	dropped, failed uint64 // lines
	since           time.Time
}

// Counts are the lines of an Output since its start.
type Counts struct {
	Lines   uint64 `json:"lines"`   // written
	Dropped uint64 `json:"dropped"` // since too many waited to be written
	Failed  uint64 `json:"failed"`  // since they could not be written
	Sampled uint64 `json:"sampled"` // left out since there were many alike: see From
}

// NewOutput returns an Output to w. Close ends it.
func NewOutput(w io.Writer) *Output {
	o := &Output{
		w: w, wake: make(chan struct{}, 1), abandoned: make(chan struct{}), done: make(chan struct{}),
	}
	o.samples = newSamples(&o.muted)
	go o.run()
	return o
}

// Counts returns the counts of this moment.
func (o *Output) Counts() Counts {
	return Counts{Lines: o.written.Load(), Dropped: o.dropped.Load(), Failed: o.failed.Load(), Sampled: o.muted.Load()}
}

// Write takes lines. It never fails and never blocks.
func (o *Output) Write(p []byte) (int, error) {
	o.put(p, queueBytes)
	return len(p), nil
}

// Sync does nothing: whoever needs the lines to be out calls Close.
func (*Output) Sync() error { return nil }

// reserve is the Output for the notes: it has room for them where there is none for lines.
type reserve struct{ *Output }

func (r reserve) Write(p []byte) (int, error) {
	r.put(p, queueBytes+noteBytes)
	return len(p), nil
}

// put queues lines, or drops them where that makes more than most bytes.
func (o *Output) put(p []byte, most int) {
	if len(p) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed && most == queueBytes || o.size+len(p)+1 > most {
		lines := linesOf(p)
		o.dropped.Add(lines)
		o.gap.add(gap{dropped: lines, since: time.Now()})
		return
	}
	before := len(o.queued)
	o.queued = append(o.queued, p...)
	if p[len(p)-1] != '\n' {
		o.queued = append(o.queued, '\n')
	}
	o.size += len(o.queued) - before
	o.signal()
}

func (o *Output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Close writes what is queued, for closeBound at most: then nobody reads, and nobody will.
func (o *Output) Close() {
	o.samples.flush()
	o.mu.Lock()
	o.closed = true
	o.signal()
	o.mu.Unlock()
	timer := time.NewTimer(closeBound)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
		close(o.abandoned) // ends a goroutine that waits; one that is stuck in a write ends with the process
	}
}

// run writes what is queued, until all is written after Close.
func (o *Output) run() {
	defer close(o.done)
	var buffer []byte
	for {
		batch, closed := o.take(buffer)
		switch {
		case len(batch) > 0:
			if o.write(batch) {
				o.tellGap()
			}
		case closed:
			return
		default:
			<-o.wake
		}
		if buffer = batch; cap(buffer) > spareBytes { // the one before has lines in it by now
			buffer = nil
		}
	}
}

// take returns all lines that are queued; the next ones go into buffer, which is no longer the caller's.
func (o *Output) take(buffer []byte) (batch []byte, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	batch, o.queued = o.queued, buffer[:0]
	return batch, o.closed
}

// write writes lines, a few at a time, and reports whether all of them are out.
func (o *Output) write(batch []byte) bool {
	whole := true
	for len(batch) > 0 {
		some := batch[:wholeLines(batch)]
		batch = batch[len(some):]
		err := o.writeAll(some)
		lines := linesOf(some)
		if err == nil {
			o.written.Add(lines)
		} else {
			whole = false
			o.failed.Add(lines)
		}
		o.mu.Lock()
		o.size -= len(some)
		if err != nil {
			o.gap.add(gap{failed: lines, since: time.Now()})
		}
		o.mu.Unlock()
	}
	return whole
}

// writeAll writes p as a whole, where it can. A pipe that is full and says so, since somebody else has made it not
// block, is tried again.
func (o *Output) writeAll(p []byte) error {
	if o.torn {
		p = append([]byte{'\n'}, p...)
	}
	for {
		n, err := o.w.Write(p)
		if n > 0 {
			o.torn = p[n-1] != '\n'
		}
		if n == len(p) {
			return nil
		}
		p = p[n:]
		switch {
		case err == nil:
			return io.ErrShortWrite
		case !errors.Is(err, syscall.EAGAIN), !o.pause():
			return err
		}
	}
}

// pause waits a moment; it reports false where that is of no use any more.
func (o *Output) pause() bool {
	timer := time.NewTimer(fullPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-o.abandoned:
		return false
	}
}

// tellGap logs what was lost, if anything was.
func (o *Output) tellGap() {
	o.mu.Lock()
	lost, note := o.gap, o.note
	if note != nil {
		o.gap = gap{}
	}
	o.mu.Unlock()
	if note != nil && lost != (gap{}) {
		note(lost)
	}
}

// add counts what more was lost.
func (g *gap) add(more gap) {
	if *g == (gap{}) {
		g.since = more.since
	}
	g.dropped += more.dropped
	g.failed += more.failed
}

// linesOf returns how many lines p has.
func linesOf(p []byte) uint64 {
	n := uint64(bytes.Count(p, []byte{'\n'}))
	if p[len(p)-1] != '\n' {
		n++
	}
	return n
}

// wholeLines returns the length of as many lines of b, which ends with one, as fit into a write, of one at least.
func wholeLines(b []byte) int {
	if len(b) <= writeBytes {
		return len(b)
	}
	if end := bytes.LastIndexByte(b[:writeBytes], '\n'); end >= 0 {
		return end + 1
	}
	return bytes.IndexByte(b, '\n') + 1
}
