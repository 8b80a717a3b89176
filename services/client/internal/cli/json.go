package cli

import (
	"encoding/json"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/wire"
)

// jsonOutput writes one object per line. Durations are in milliseconds. The pieces of text of all lines make the whole, see
// piece.
type jsonOutput struct {
	*sink
	encoder *json.Encoder
	chars   characters
}

func newJSONOutput(s *sink) *jsonOutput {
	o := &jsonOutput{sink: s, encoder: json.NewEncoder(s)}
	o.encoder.SetEscapeHTML(false)
	return o
}

// head begins every object, with where the stream stands.
type head struct {
	Event        string    `json:"event"`
	Time         time.Time `json:"time"`
	ConnectionID string    `json:"connection_id,omitempty"`
	StreamID     uint64    `json:"stream_id,omitempty"`
	Worker       string    `json:"worker,omitempty"`
	Epoch        uint64    `json:"epoch,omitempty"`
	Sequence     uint64    `json:"sequence,omitempty"`
}

type proof struct {
	ODCID    string `json:"odcid"`
	Exporter string `json:"exporter"`
}

type connectedLine struct {
	head
	Director string `json:"director"`
	proof
}

type waitingLine struct {
	head
	Reason    string `json:"reason"`
	TimeoutMS int64  `json:"timeout_ms"`
}

// piece is a part of the text: whole characters, the last of which this token has completed. Where they are not valid in
// UTF-8 the text shows U+FFFD, and Bytes (base64) has what it stands for.
type piece struct {
	Text  string `json:"text"`
	Bytes []byte `json:"bytes,omitempty"`
}

func newPiece(text string) piece { return piece{text, outside(text)} }

// rest is a piece at the end of a text, which is there only if the text ended within a character.
type rest struct {
	Text  string `json:"text,omitempty"`
	Bytes []byte `json:"bytes,omitempty"`
}

type tokenLine struct {
	head
	Choice  int              `json:"choice,omitempty"`
	Channel connswap.Channel `json:"channel,omitempty"` // 1 reasoning, 2 refusal, 3 tool call; else content
	piece
}

type recoveringLine struct {
	head
	ToWorker string `json:"to_worker"`
	At       uint64 `json:"at"` // of a number of its own
	Of       uint64 `json:"of"`
}

type swappedLine struct {
	head
	FromWorker string  `json:"from_worker"`
	ToWorker   string  `json:"to_worker"`
	Kind       string  `json:"kind"`
	Cause      string  `json:"cause"`
	GapMS      float64 `json:"gap_ms"`
	IntervalMS float64 `json:"interval_ms"`
	proof
}

type resumedLine struct {
	head
	Code       string  `json:"code"` // how the connection was lost
	Message    string  `json:"message"`
	GapMS      float64 `json:"gap_ms"`
	IntervalMS float64 `json:"interval_ms"`
	proof
}

type doneLine struct {
	head
	FinishReason string `json:"finish_reason"`
	Tokens       uint64 `json:"tokens"`
	Swaps        int    `json:"swaps"`
	Digest       string `json:"digest"`
	Usage        *usage `json:"usage,omitempty"`
	proof
	rest
}

// usage is what the stream took, in tokens.
type usage struct {
	Prompt     uint64 `json:"prompt_tokens"`
	Completion uint64 `json:"completion_tokens"`
	Cached     uint64 `json:"cached_tokens,omitempty"`
	Reasoning  uint64 `json:"reasoning_tokens,omitempty"`
}

type errorLine struct {
	head
	Code    string `json:"code"`
	Message string `json:"message"`
	rest
}

func (o *jsonOutput) connected(r *report) {
	o.write(connectedLine{newHead("connected", r), r.director, proof(r.now)})
}

func (o *jsonOutput) event(r *report, event connswap.Event) {
	switch e := event.(type) {
	case connswap.Assigned:
		o.write(newHead("assigned", r))
	case connswap.Waiting:
		o.write(waitingLine{newHead("waiting", r), e.Reason, e.Timeout.Milliseconds()})
	case connswap.Recovering:
		o.write(recoveringLine{newHead("recovering", r), e.Worker, e.At, e.Of})
	case connswap.Token:
		o.write(tokenLine{newHead("token", r), e.Choice, e.Channel, newPiece(o.chars.add(e.Text))})
	case connswap.Swapped:
		o.write(swappedLine{
			newHead("swapped", r), e.From, e.To, e.Kind, e.Cause,
			milliseconds(e.Gap), milliseconds(e.Interval), proof(e.Proof),
		})
	case connswap.Resumed:
		cause := describe(e.Cause)
		o.write(resumedLine{
			newHead("resumed", r), string(cause.Code), cause.Message, milliseconds(e.Gap), milliseconds(e.Interval), proof(e.Proof),
		})
	case connswap.Done:
		o.write(doneLine{
			newHead("done", r), e.FinishReason, e.Tokens, e.Swaps, e.Digest.String(), (*usage)(e.Usage), proof(r.now),
			rest(newPiece(o.chars.end())),
		})
	}
}

func (o *jsonOutput) ended(r *report, err error) {
	if err != nil {
		e := describe(err)
		o.write(errorLine{newHead("error", r), string(e.Code), e.Message, rest(newPiece(o.chars.end()))})
	}
}

func (o *jsonOutput) write(line any) {
	_ = o.encoder.Encode(line) // the sink remembers, and the lines have nothing that has no JSON
}

func newHead(event string, r *report) head {
	return head{
		Event: event, Time: time.Now(), ConnectionID: r.connection, StreamID: r.stream,
		Worker: r.worker, Epoch: r.epoch, Sequence: r.sequence,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// describe is a stream's error for programs. What has no code of its own is the caller's own doing.
func describe(err error) *wire.Error { return wire.AsError(err, wire.CodeCancelled) }
