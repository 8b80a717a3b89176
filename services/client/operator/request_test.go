package operator_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
)

// call is one of the requests with everything set; it returns what it got.
type call func(ctx context.Context, c *operator.Client) (any, error)

var calls = map[string]call{
	"status": func(ctx context.Context, c *operator.Client) (any, error) { return c.Status(ctx) },
	"swap": func(ctx context.Context, c *operator.Client) (any, error) {
		return c.Swap(ctx, "conn-1", 2, "worker-b")
	},
	"drain": func(ctx context.Context, c *operator.Client) (any, error) {
		return c.Drain(ctx, "worker-a", time.Minute, true, nil)
	},
	"undrain":   func(ctx context.Context, c *operator.Client) (any, error) { return nil, c.Undrain(ctx, "worker-a") },
	"rebalance": func(ctx context.Context, c *operator.Client) (any, error) { return c.Rebalance(ctx, nil) },
	"confirm":   func(ctx context.Context, c *operator.Client) (any, error) { return nil, c.Confirm(ctx, "conn-1", 2) },
	"veto":      func(ctx context.Context, c *operator.Client) (any, error) { return nil, c.Veto(ctx, "conn-1", 2, "no") },
}

func TestRequestsAndResults(t *testing.T) {
	for name, test := range map[string]struct {
		asked, answer string
		want          any
	}{
		"status": {
			`status`, `{"director":"director-1"}`,
			operator.Status{Director: "director-1", Raw: []byte(`{"director":"director-1"}`)},
		},
		"swap": {
			`swap {"connection_id":"conn-1","stream_id":2,"to_worker":"worker-b"}`,
			`{"cut_sequence":7,"gap_ms":1.5,"state":"Completed","new":0}`,
			migration.Record{Cut: 7, GapMS: 1.5, State: "Completed"},
		},
		"drain": {
			`drain {"worker":"worker-a","timeout_ms":60000,"force":true}`,
			`{"remaining":0,"moved":3,"failed":1}`,
			operator.Moves{Moved: 3, Failed: 1},
		},
		"undrain":   {`undrain {"worker":"worker-a"}`, `{"message":"done"}`, nil},
		"rebalance": {`rebalance {}`, `{"remaining":0,"moved":4,"failed":0}`, operator.Moves{Moved: 4}},
		"confirm":   {`confirm {"connection_id":"conn-1","stream_id":2}`, `{"message":"confirmed"}`, nil},
		"veto":      {`veto {"connection_id":"conn-1","stream_id":2,"reason":"no"}`, `{"message":"vetoed"}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				client := t.dial(func(o *fakedirector.Operation) error {
					if o.Request != test.asked {
						t.Errorf("asked for %v, want %v", o.Request, test.asked)
					}
					o.Progress(`{"remaining":9}`) // where nobody expects one, too
					return o.Result(test.answer)
				})
				for range 20 { // the director allows 8 at once
					got, err := calls[name](t.Context(), client)
					if err != nil || !reflect.DeepEqual(got, test.want) {
						t.Fatalf("got %+v, %v, want %+v", got, err, test.want)
					}
				}
			})
		})
	}
}

func TestEveryRequestTellsWhyItIsRefused(t *testing.T) {
	refusal := wire.Errorf(wire.CodeInvalid, "there is no such thing")
	for name, call := range calls {
		inWorld(t, func(t *world) {
			_, err := call(t.Context(), t.dial(func(*fakedirector.Operation) error { return refusal }))
			if !errors.Is(err, refusal) {
				t.Errorf("%s: got %v", name, err)
			}
		})
	}
}

// An answer that is not what was asked for is never taken for one.
func TestBrokenAnswers(t *testing.T) {
	answer := func(text string) func(*fakedirector.Operation) error {
		return func(o *fakedirector.Operation) error { return o.Result(text) }
	}
	say := func(event string) func(*fakedirector.Operation) error {
		return func(o *fakedirector.Operation) error {
			o.Say(event)
			return nil
		}
	}
	for name, test := range map[string]struct {
		call    string
		operate func(*fakedirector.Operation) error
		want    wire.Code
	}{
		"nothing":           {"undrain", say(""), wire.CodeProtocol},
		"progress only":     {"drain", say("event: progress\ndata: {}\n\n"), wire.CodeProtocol},
		"half an event":     {"undrain", say("event: result\ndata: {}\n"), wire.CodeProtocol},
		"no data":           {"undrain", say("event: result\n\n"), wire.CodeProtocol},
		"no JSON":           {"undrain", answer("<html>"), wire.CodeProtocol},
		"another event":     {"undrain", say("event: news\ndata: {}\n\n"), wire.CodeProtocol},
		"an error of none":  {"undrain", say("event: error\ndata: {}\n\n"), wire.CodeProtocol},
		"an endless line":   {"undrain", say("data: " + strings.Repeat("x", 2<<20)), wire.CodeProtocol},
		"broken off":        {"undrain", func(*fakedirector.Operation) error { return errors.New("defect") }, wire.CodeLost},
		"status broken off": {"status", func(*fakedirector.Operation) error { return errors.New("defect") }, wire.CodeLost},
		"no status":         {"status", answer(""), wire.CodeProtocol},
		"an empty status":   {"status", answer("null"), wire.CodeProtocol},
		"no status either":  {"status", answer("<html>"), wire.CodeProtocol},
		"of nobody":         {"status", answer("{}"), wire.CodeProtocol},
		"no swap":           {"swap", answer("null"), wire.CodeProtocol},
		"no state":          {"swap", answer("{}"), wire.CodeProtocol},
		"a failed swap":     {"swap", answer(`{"state":"Failed"}`), wire.CodeCancelled},
		"an aborted swap":   {"swap", answer(`{"state":"Aborted","reason":"vetoed"}`), wire.CodeCancelled},
		"no moves":          {"drain", answer(`{}`), wire.CodeProtocol},
		"streams remain":    {"drain", answer(`{"remaining":1}`), wire.CodeNoWorker},
		"not balanced":      {"rebalance", answer(`{"remaining":1}`), wire.CodeNoWorker},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				got, err := calls[test.call](t.Context(), t.dial(test.operate))
				if !errors.Is(err, &wire.Error{Code: test.want}) {
					t.Errorf("got %v, %v", got, err)
				}
			})
		})
	}
}

func TestLargeStatus(t *testing.T) {
	inWorld(t, func(t *world) {
		var doc strings.Builder
		doc.WriteString(`{"director":"director-1","connections":[`)
		const n = 20_000
		for i := range n {
			fmt.Fprintf(&doc, `{"connection_id":"conn-%016d","streams":[{"stream_id":1,"worker":"worker-a"}]},`, i)
		}
		document := strings.TrimSuffix(doc.String(), ",") + "]}"
		client := t.dial(func(o *fakedirector.Operation) error { return o.Result(document) })
		status, err := client.Status(t.Context())
		if err != nil || len(status.Connections) != n || string(status.Raw) != document {
			t.Errorf("got %d connections, %v", len(status.Connections), err)
		}
	})
}

func TestProgress(t *testing.T) {
	inWorld(t, func(t *world) {
		client := t.dial(func(o *fakedirector.Operation) error {
			o.Progress(`{"remaining":2}`)
			o.Progress(`{"remaining":1,"moved":1,"failed":1,"in_the_way":["conn-1 waits\u001b[2J"]}`)
			return wire.Errorf(wire.CodeNoWorker, "time is over")
		})
		var seen []operator.Moves
		last, err := client.Drain(t.Context(), "worker-a", time.Nanosecond, false, func(m operator.Moves) { seen = append(seen, m) })
		want := []operator.Moves{{Remaining: 2}, {Remaining: 1, Moved: 1, Failed: 1, InTheWay: []string{"conn-1 waits [2J"}}}
		if !reflect.DeepEqual(seen, want) || !reflect.DeepEqual(last, want[1]) {
			t.Errorf("saw %+v, at last %+v", seen, last)
		}
		if !errors.Is(err, &wire.Error{Code: wire.CodeNoWorker}) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhatCannotBeAsked(t *testing.T) {
	inWorld(t, func(t *world) {
		client := t.dial(func(o *fakedirector.Operation) error { return wire.Errorf(wire.CodeInvalid, "unknown") })
		for name, call := range map[string]call{
			"no time": func(ctx context.Context, c *operator.Client) (any, error) {
				return c.Drain(ctx, "worker-a", 0, false, nil)
			},
			"no text": func(ctx context.Context, c *operator.Client) (any, error) { return nil, c.Undrain(ctx, "\xff") },
			"too long": func(ctx context.Context, c *operator.Client) (any, error) {
				return nil, c.Veto(ctx, "conn-1", 0, strings.Repeat("x", 1<<20))
			},
		} {
			if _, err := call(t.Context(), client); !errors.Is(err, &wire.Error{Code: wire.CodeInvalid}) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}
