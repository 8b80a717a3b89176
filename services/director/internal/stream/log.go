package stream

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/director/internal/clock"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
)

// Config bounds a Log.
type Config struct {
	MaxBytes  int    // of text, of the whole stream
	MaxTokens uint64 // that the request asks for, of each choice
	Choices   uint32 // that it asks for; 0 for one
	Release   Release
	Window    int            // tokens that a worker may send ahead of what the client's connection took
	Progress  uint64         // tokens after which an epoch has made progress
	Memory    Memory         // nil for as much as there is
	Stalls    *atomic.Uint64 // counts how often a worker had to wait for the client; nil for nobody
}

// Memory is what a Log takes its memory from, a block at a time.
type Memory interface {
	// Grow takes so many bytes more, and reports whether they are there. It must not block.
	Grow(bytes int) bool
}

// Notice is what the owner of a stream has to know of its log.
type Notice struct {
	Kind  Kind
	Epoch uint64
}

// Kind says what a Notice is about.
type Kind uint8

// Kinds of notices.
const (
	Broken       Kind = iota // the worker of the epoch broke the protocol; the log is fenced
	Full                     // the worker of the epoch sent what no longer fits; the log is fenced
	Starved                  // the same, but what there is no memory for
	First                    // the epoch that is being verified has its first token
	Progressed               // the present epoch has made progress
	Stopped                  // a stop string came: the log ends before it, and is fenced
	Awaited                  // the token came that the owner waits for, see Await
	Acknowledged             // the client has read the last frame
)

// Log is one stream. It is safe for concurrent use.
type Log struct {
	cfg   Config
	clock *clock.StallProof
	told  func(Notice) // called with mu held: it must not block, nor call the log

	mu sync.Mutex

	// What each token touches lies together: with many streams, most of what a token costs is to get this into the
	// cache.

	// The fence. At most one of epoch and pending is not zero.
	epoch   uint64 // that may append; 0 while fenced
	pending uint64 // that is being verified: its tokens wait
	granted uint64 // highest sequence that the worker may send
	taken   uint64 // sequence up to which the client's connection has taken the stream
	goal    uint64 // sequence with which the present epoch will have made progress
	awaited bool   // the owner is told of the next token
	closed  bool   // the last frame is there
	finish  string // why the text is complete, whatever its worker says: see Finish
	begun   bool   // the worker of the pending epoch has said where it begins
	cadence cadence
	journal journal

	release *release     // nil where all that is in the journal may be read
	waiting []wire.Chunk // of the pending epoch
	highest uint64       // that ever was pending
	fenced  uint64       // tokens refused because their epoch was over
	worker  string       // label of the one that the client was told last
	acked   uint64       // records that the client has read for good
	read    uint64       // sequence of the last token among them
}

// New returns a Log without tokens, fenced.
func New(cfg Config, clock *clock.StallProof, told func(Notice)) *Log {
	return &Log{cfg: cfg, clock: clock, told: told, journal: journal{limit: cfg.MaxBytes, memory: cfg.Memory}, release: newRelease(cfg.Release)}
}

// Append takes one token, which came at a time, if its epoch may append. The tokens of an epoch that is being verified
// wait; all others are dropped, that is the fence.
func (l *Log) Append(t wire.Chunk, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case t.Epoch == 0 || t.Epoch != l.epoch && t.Epoch != l.pending:
		l.fenced++
	case l.beyond(&t) || t.Sequence > l.granted:
		l.breaks(Broken, t.Epoch) // more than was asked for, or tokens that no bound would ever stop
	case t.Epoch == l.epoch:
		l.accept(&t, at)
	case !l.begun || t.Sequence != l.journal.tokens+uint64(len(l.waiting))+1:
		l.breaks(Broken, t.Epoch)
	default:
		l.waiting = append(l.waiting, copied(t))
		if len(l.waiting) == 1 {
			l.told(Notice{First, t.Epoch})
		}
	}
}

// beyond reports whether a chunk brings more tokens than were asked for, or can no longer be one of so many choices. l.mu
// is held.
func (l *Log) beyond(t *wire.Chunk) bool {
	if t.Rich == nil && l.cfg.Choices <= 1 {
		return l.journal.weight >= l.cfg.MaxTokens
	}
	choice, _ := t.Where()
	choices := uint64(max(1, l.cfg.Choices))
	return uint64(choice) >= choices || l.journal.weight+uint64(t.Tokens()) > l.cfg.MaxTokens*choices
}

// copied returns a chunk with memory of its own.
func copied(t wire.Chunk) wire.Chunk {
	t.Text = append([]byte(nil), t.Text...)
	if t.Rich != nil {
		r := *t.Rich
		r.Data = append([]byte(nil), r.Data...) // the ids have memory of their own
		t.Rich = &r
	}
	return t
}

// accept takes a token of the present epoch. l.mu is held.
func (l *Log) accept(t *wire.Chunk, at time.Time) {
	before := snapshot{}
	if l.release != nil {
		before = l.journal.snapshot()
	}
	switch err := l.journal.append(t); {
	case errors.Is(err, errFull):
		l.breaks(Full, t.Epoch)
		return
	case errors.Is(err, errMemory):
		l.breaks(Starved, t.Epoch)
		return
	case err != nil:
		l.breaks(Broken, t.Epoch)
		return
	}
	l.cadence.token(l.clock.Now(), at)
	if l.release != nil && l.release.add(&l.journal, before, *t) {
		l.breaks(Stopped, t.Epoch)
		return
	}
	if t.Sequence == l.goal {
		l.told(Notice{Progressed, t.Epoch})
	}
	if l.awaited {
		l.awaited = false
		l.told(Notice{Awaited, t.Epoch})
	}
}

// breaks fences the log because of what the worker of an epoch sent. l.mu is held.
func (l *Log) breaks(kind Kind, epoch uint64) {
	switch kind { //nolint:exhaustive // all others leave the text to the next worker
	case Stopped:
		l.finish = "stop"
	case Full:
		l.finish = "length"
	}
	l.fence()
	l.told(Notice{kind, epoch})
}

// Begun takes note that the worker of the pending epoch has said where it begins: tell is called with the log's lock
// held, so that the owner hears of it before it hears of a token. For any other epoch, and for a second time, nothing
// happens.
func (l *Log) Begun(epoch uint64, tell func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != 0 && epoch == l.pending && !l.begun {
		l.begun = true
		tell()
	}
}

// Fence makes sure that nothing is accepted any more, from anybody.
func (l *Log) Fence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fence()
}

func (l *Log) fence() {
	if l.epoch != 0 && l.journal.tokens >= l.granted {
		l.cadence.starved(time.Now())
	}
	l.epoch, l.pending, l.waiting, l.begun, l.awaited = 0, 0, nil, false, false
}

// Expect fences the log, and opens it for the tokens of an epoch, which are verified before they count. It returns the
// highest sequence that the worker may send.
func (l *Log) Expect(epoch uint64) (credit uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expect(epoch)
}

func (l *Log) expect(epoch uint64) (credit uint64) {
	l.fence()
	l.pending, l.highest = epoch, max(l.highest, epoch)
	// One token at least, even to a client that reads nothing: without it the worker could not be verified.
	l.granted = max(l.taken+l.heldBack()+uint64(l.cfg.Window), l.journal.tokens+1)
	return l.granted
}

// Cut does what Expect does, if the epoch from is the present one, and reports whether it is. The cut is behind the
// last token of that.
func (l *Log) Cut(from, epoch uint64) (credit, cut uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from == 0 || l.epoch != from {
		return 0, 0, false
	}
	return l.expect(epoch), l.journal.tokens, true
}

// Expects reports whether the log is open for the tokens of an epoch that is being verified.
func (l *Log) Expects(epoch uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return epoch != 0 && l.pending == epoch
}

// Waits reports whether a token of the pending epoch waits.
func (l *Log) Waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) > 0
}

// Serve makes the pending epoch, which is a worker's, the present one: the client is told with m, and gets the tokens
// that waited. It returns how long no token had come, beyond the usual interval; false if another epoch is pending, or
// none.
func (l *Log) Serve(epoch uint64, worker string, m wire.Message) (gap time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch == 0 || l.pending != epoch {
		return 0, false
	}
	now := time.Now()
	gap = l.cadence.gap(now)
	l.mark(m)
	first, waiting := l.journal.tokens+1, l.waiting
	l.goal = l.journal.tokens + l.cfg.Progress
	l.fence()
	l.epoch, l.worker = epoch, worker
	l.cadence.restart(l.clock.Now())
	for i, chunk := range waiting {
		chunk.Epoch, chunk.Sequence = epoch, first+uint64(i)
		if l.accept(&chunk, now); l.epoch != epoch {
			break // the log was fenced
		}
	}
	return gap, true
}

// Mark tells the client something, after all tokens that are there.
func (l *Log) Mark(m wire.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark(m)
}

func (l *Log) mark(m wire.Message) {
	if l.closed {
		return
	}
	l.journal.mark(m)
	if l.release != nil {
		l.release.move(&l.journal)
	}
}

// Close fences the log for ever and ends it with the last thing that the client is told.
func (l *Log) Close(last wire.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fence()
	if l.release != nil {
		l.release.end(&l.journal)
	}
	l.mark(last)
	l.closed = true
}

// Await has the owner told of the next token that is accepted in the present epoch; it is forgotten with the next
// fence.
func (l *Log) Await() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaited = l.epoch != 0
}

// Credit returns the highest sequence that the worker of an epoch may send, when half a window or more has become free
// since it was told last, and takes note that it is told; and the sequence up to which the client has read for good. Otherwise,
// or if the epoch is not the present one, it returns false.
func (l *Log) Credit(epoch uint64) (sequence, acknowledged uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	window, taken := uint64(l.cfg.Window), l.taken+l.heldBack()
	if epoch == 0 || l.epoch != epoch || taken+window < l.granted+(window+1)/2 {
		return 0, 0, false
	}
	if l.journal.tokens >= l.granted {
		l.cadence.starved(time.Now())
		if l.cfg.Stalls != nil {
			l.cfg.Stalls.Add(1)
		}
	}
	l.granted = taken + window
	l.cadence.allow(l.clock.Now())
	return l.granted, l.read, true
}

// heldBack returns how many chunks the client cannot take yet: what waits for them must not keep the worker waiting.
// l.mu is held.
func (l *Log) heldBack() uint64 {
	if l.release == nil {
		return 0
	}
	return l.journal.tokens - l.release.at.tokens
}

// Len returns the number of tokens, which is also the sequence of the last one.
func (l *Log) Len() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.tokens
}

// Weight returns how many tokens the chunks stand for.
func (l *Log) Weight() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.weight
}

// Complete reports whether there are as many tokens as the request asks for.
func (l *Log) Complete() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.weight >= l.cfg.MaxTokens*uint64(max(1, l.cfg.Choices))
}

// Finish returns the reason for which the text is complete, whatever its worker still says of it: a stop string came, or no more
// fits. It is empty as long as there is none.
func (l *Log) Finish() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.finish
}

// Digest returns the digest over all chunks, and how many there are.
func (l *Log) Digest() (digest session.Digest, tokens uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.sum(), l.journal.tokens
}

// Since returns copies of the chunks after a sequence, and the digest over all chunks, also those before.
func (l *Log) Since(sequence uint64) (session.Pack, session.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.since(sequence), l.journal.sum()
}

// Exhausted reports whether the worker has sent all that it may. Its silence then says nothing.
func (l *Log) Exhausted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.tokens >= l.granted
}

// Silence returns how much longer the worker may produce nothing, in stall-proof time, allowing factor times the usual;
// negative when it is overdue.
func (l *Log) Silence(t Timeouts, factor time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	if l.journal.tokens >= l.granted {
		l.cadence.allow(now)
	}
	return factor*l.cadence.timeout(t) - (now - l.cadence.last)
}

// Interval returns the usual time between two tokens; 0 if it is not known.
func (l *Log) Interval() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cadence.mean
}

// Status is a log as it is shown to people and programs.
type Status struct {
	Worker   string // label of the one that the client was told last
	Epoch    uint64 // present one; 0 while fenced
	Highest  uint64 // newest that was opened
	Sequence uint64 // last token accepted
	Taken    uint64 // last token that the client's connection took
	Fenced   uint64 // tokens refused because their epoch was over
}

// Status returns the log's numbers of this moment.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Status{Worker: l.worker, Epoch: l.epoch, Highest: l.highest, Sequence: l.journal.tokens, Taken: l.taken, Fenced: l.fenced}
}
