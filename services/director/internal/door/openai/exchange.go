package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/stream"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// exchange is one request that generates, from when it is let in until its stream may be forgotten. What its client sees follows
// from what is here and from the log, so that it can be written again for a client that comes back.
type exchange struct {
	ask        *ask
	id         string // resp_…, chatcmpl-… or cmpl-…
	suffix     string // of all ids: what is random in them
	connection string // conn-…
	number     uint64 // of its connection
	protocol   string // version of HTTP
	client     string // what the client's program calls itself
	created    time.Time
	named      string            // the model, as the request does; empty where it names none
	key        string            // name of the key that it came with; empty without keys
	promise    uint32            // class of continuity, of all workers with the model
	told       bool              // the client wants to know what happened behind
	resumable  bool              // the stream goes on without its client, for a while
	inputs     []json.RawMessage // of a response: all items that it was asked with

	session *session.Session
	log     *stream.Log
	cancel  context.CancelCauseFunc // ends the stream
	release func()                  // gives back what it holds; called once, after its end
	over    chan struct{}           // closed once it has ended
	expiry  *time.Timer             // ends its retention; nil before that has begun. Guarded by kept.mu

	worker  atomic.Pointer[string] // label of the first one
	longest atomic.Int64           // gap at a swap, as the first client saw it
}

// identify makes the ids, and what else a client sees of an exchange.
func (e *exchange) identify() {
	e.suffix = identity.NewID() + identity.NewID()
	e.connection, e.created = "conn-"+identity.NewID(), time.Now()
	e.id = map[api]string{chat: "chatcmpl-", completions: "cmpl-", responses: "resp_"}[e.ask.api] + e.suffix // others have none
}

// callID is the id of a tool call of a choice.
func (e *exchange) callID(choice, index int) string {
	return fmt.Sprintf("call_%s%02x%02x", e.suffix[:20], choice, index)
}

// head begins a JSON object with what is the same in each of a stream.
func (e *exchange) head(object string) []byte {
	b := append([]byte(`{"id":"`), e.id...)
	b = append(append(b, `","object":"`...), object...)
	b = strconv.AppendInt(append(b, `","created":`...), e.created.Unix(), 10)
	return appendString(append(b, `,"model":`...), e.model())
}

// model is what the client is told that answers: what it has asked for, if it has.
func (e *exchange) model() string { return cmp.Or(e.named, e.ask.request.GetModel()) }

// usageOf is what a stream took; where the engine does not say, as many tokens as the chunks stand for.
func (e *exchange) usageOf(done *wirepb.Done) *wirepb.Usage {
	if u := done.GetUsage(); u != nil {
		return u
	}
	return &wirepb.Usage{CompletionTokens: done.GetTokens()}
}

// outcome is what happened behind, as JSON.
func (e *exchange) outcome(done *wirepb.Done) []byte {
	b, _ := json.Marshal(struct { // numbers always can be
		Swaps      uint32  `json:"swaps"`
		GapMS      float64 `json:"gap_ms"`
		Continuity string  `json:"continuity"`
	}{done.GetSwaps(), e.gapMS(), wire.Continuity(done.GetContinuity())})
	return b
}

func (e *exchange) gapMS() float64 {
	return float64(time.Duration(e.longest.Load()).Microseconds()) / 1000
}
