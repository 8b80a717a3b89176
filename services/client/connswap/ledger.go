package connswap

import (
	"fmt"
	"time"

	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// ledger is what a stream has been given so far. It accepts a frame only where that keeps the promises.
type ledger struct {
	worker   string
	epoch    uint64 // of worker; 0 before Assigned
	sequence uint64 // of the last token
	records  uint64 // tokens, and what was told between them
	digest   session.Rolling
	token    Token // the last one
}

// accept enters a frame and returns what it means.
func (l *ledger) accept(f wire.Frame) (Event, error) {
	l.records++
	if f.IsChunk() {
		t, err := wire.ParseChunk(f)
		if err != nil {
			return nil, err
		}
		return l.accepted(t)
	}
	m, err := wire.Decode(f)
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *wirepb.Assigned:
		return l.assigned(m)
	case *wirepb.Waiting:
		return Waiting{Reason: m.GetReason(), Timeout: milliseconds(m.GetTimeoutMs())}, nil
	case *wirepb.Recovering:
		return Recovering{Worker: m.GetWorker(), At: m.GetAt(), Of: m.GetOf()}, nil
	case *wirepb.Swapped:
		return l.swapped(m)
	case *wirepb.Done:
		return l.done(m)
	case *wire.ErrorMessage:
		return failed{wire.FromMessage(m)}, nil
	default:
		return nil, fmt.Errorf("%w: %s", wire.ErrUnexpected, f.Type)
	}
}

// maxWaiting keeps a Waiting's milliseconds from overflowing.
const maxWaiting = 365 * 24 * time.Hour

func (l *ledger) accepted(t wire.Chunk) (Event, error) {
	if l.epoch == 0 {
		return nil, broken(ErrFrame, "token %d before a worker was assigned", t.Sequence)
	}
	if t.Sequence != l.sequence+1 {
		return nil, broken(ErrSequence, "token %d after %d", t.Sequence, l.sequence)
	}
	if t.Epoch != l.epoch {
		return nil, broken(ErrEpoch, "token %d of epoch %d in epoch %d", t.Sequence, t.Epoch, l.epoch)
	}
	l.sequence = t.Sequence
	l.digest.Add(t)
	l.token = Token{Sequence: t.Sequence, Epoch: t.Epoch, Worker: l.worker, Text: string(t.Text), Tokens: int(t.Tokens())}
	if r := t.Rich; r != nil {
		l.token.Choice, l.token.Channel, l.token.TokenIDs = int(r.Choice), Channel(r.Channel), r.TokenIDs
		l.token.Data = append([]byte(nil), r.Data...)
	}
	return tokenRead{}, nil
}

// assigned may come again for as long as there is no token.
func (l *ledger) assigned(m *wirepb.Assigned) (Event, error) {
	if l.sequence > 0 {
		return nil, broken(ErrFrame, "a worker assigned after token %d", l.sequence)
	}
	if m.GetEpoch() <= l.epoch {
		return nil, broken(ErrEpoch, "assigned in epoch %d after %d", m.GetEpoch(), l.epoch)
	}
	l.worker, l.epoch = m.GetWorker(), m.GetEpoch()
	return Assigned{Worker: l.worker, Epoch: l.epoch, Continuity: wire.Continuity(m.GetContinuity())}, nil
}

func (l *ledger) swapped(m *wirepb.Swapped) (Event, error) {
	if l.epoch == 0 {
		return nil, broken(ErrFrame, "a swap before a worker was assigned")
	}
	if m.GetEpoch() <= l.epoch {
		return nil, broken(ErrEpoch, "swapped to epoch %d from %d", m.GetEpoch(), l.epoch)
	}
	if m.GetLastSequence() != l.sequence {
		return nil, broken(ErrSequence, "swapped after token %d, but %d arrived", m.GetLastSequence(), l.sequence)
	}
	l.worker, l.epoch = m.GetToWorker(), m.GetEpoch()
	return &Swapped{ // a pointer, since it is not complete yet
		From: m.GetFromWorker(), To: l.worker,
		Kind: m.GetKind(), Cause: m.GetCause(),
		Epoch: l.epoch, Sequence: l.sequence, Continuity: wire.Continuity(m.GetContinuity()),
	}, nil
}

func (l *ledger) done(m *wirepb.Done) (Event, error) {
	if m.GetTokens() != l.sequence {
		return nil, broken(ErrCount, "%d tokens announced, %d arrived", m.GetTokens(), l.sequence)
	}
	digest := l.digest.Digest()
	if !digest.Equal(m.GetDigest()) {
		return nil, broken(ErrDigest, "digest %x announced, %s arrived", m.GetDigest(), digest)
	}
	done := Done{
		FinishReason: m.GetFinishReason(), FinishReasons: m.GetFinishReasons(), Tokens: l.sequence, Swaps: int(m.GetSwaps()), Digest: digest,
		Continuity: wire.Continuity(m.GetContinuity()),
	}
	if u := m.GetUsage(); u != nil {
		done.Usage = &Usage{
			Prompt: u.GetPromptTokens(), Completion: u.GetCompletionTokens(), Cached: u.GetCachedTokens(), Reasoning: u.GetReasoningTokens(),
		}
	}
	return done, nil
}
