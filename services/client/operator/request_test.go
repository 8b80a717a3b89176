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
	"github.com/connswap/connswap/shared/wire/wirepb"
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
		asked  *wirepb.Operate
		answer *wirepb.Operated
		want   any
	}{
		"status": {
			&wirepb.Operate{Request: &wirepb.Operate_Status{Status: &wirepb.StatusRequest{}}},
			&wirepb.Operated{Status: []byte(`{"director":"director-1"}`)},
			operator.Status{Director: "director-1", Raw: []byte(`{"director":"director-1"}`)},
		},
		"swap": {
			&wirepb.Operate{Request: &wirepb.Operate_Swap{Swap: &wirepb.SwapRequest{
				ConnectionId: "conn-1", StreamId: 2, ToWorker: "worker-b",
			}}},
			&wirepb.Operated{Swap: &wirepb.SwapReport{Record: []byte(`{"cut_sequence":7,"gap_ms":1.5,"state":"Completed","new":0}`)}},
			migration.Record{Cut: 7, GapMS: 1.5, State: "Completed"},
		},
		"drain": {
			&wirepb.Operate{Request: &wirepb.Operate_Drain{Drain: &wirepb.DrainRequest{
				Worker: "worker-a", TimeoutMs: 60_000, Force: true,
			}}},
			&wirepb.Operated{Moves: &wirepb.MoveReport{Moved: 3, Failed: 1}},
			operator.Moves{Moved: 3, Failed: 1},
		},
		"undrain": {
			&wirepb.Operate{Request: &wirepb.Operate_Undrain{Undrain: &wirepb.UndrainRequest{Worker: "worker-a"}}},
			&wirepb.Operated{}, nil,
		},
		"rebalance": {
			&wirepb.Operate{Request: &wirepb.Operate_Rebalance{Rebalance: &wirepb.RebalanceRequest{}}},
			&wirepb.Operated{Moves: &wirepb.MoveReport{Moved: 4}},
			operator.Moves{Moved: 4},
		},
		"confirm": {
			&wirepb.Operate{Request: &wirepb.Operate_Decide{Decide: &wirepb.DecideRequest{
				ConnectionId: "conn-1", StreamId: 2, Confirm: true,
			}}},
			&wirepb.Operated{}, nil,
		},
		"veto": {
			&wirepb.Operate{Request: &wirepb.Operate_Decide{Decide: &wirepb.DecideRequest{
				ConnectionId: "conn-1", StreamId: 2, Reason: "no",
			}}},
			&wirepb.Operated{}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *world) {
				client := t.dial(func(o *fakedirector.Operation) error {
					if o.Request.String() != test.asked.String() {
						t.Errorf("asked for %v, want %v", o.Request, test.asked)
					}
					o.Progress(&wirepb.MoveReport{Remaining: 9}) // where nobody expects one, too
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
	answer := func(m *wirepb.Operated) func(*fakedirector.Operation) error {
		return func(o *fakedirector.Operation) error { return o.Result(m) }
	}
	say := func(bytes ...byte) func(*fakedirector.Operation) error {
		return func(o *fakedirector.Operation) error {
			_, err := o.Write(bytes)
			return err
		}
	}
	swapped := func(record string) func(*fakedirector.Operation) error {
		return answer(&wirepb.Operated{Swap: &wirepb.SwapReport{Record: []byte(record)}})
	}
	for name, test := range map[string]struct {
		call    string
		operate func(*fakedirector.Operation) error
		want    wire.Code
	}{
		"nothing":            {"undrain", say(), wire.CodeProtocol},
		"progress only":      {"drain", func(o *fakedirector.Operation) error { o.Progress(&wirepb.MoveReport{}); return nil }, wire.CodeProtocol},
		"half a frame":       {"undrain", say(9, 0x3b), wire.CodeProtocol},
		"malformed":          {"undrain", say(3, 0x3b, 0xff, 0xff), wire.CodeProtocol},
		"unknown frame":      {"undrain", say(1, 0x3f), wire.CodeProtocol},
		"another frame":      {"undrain", say(wire.Append(nil, &wirepb.HealthReply{})...), wire.CodeProtocol},
		"a frame of 1 GiB":   {"status", say(0x80|0x40, 0, 0, 0, 0x40, 0, 0, 0), wire.CodeProtocol},
		"reset":              {"undrain", func(*fakedirector.Operation) error { return errors.New("defect") }, wire.CodeInternal},
		"no status":          {"status", answer(&wirepb.Operated{}), wire.CodeProtocol},
		"an empty status":    {"status", answer(&wirepb.Operated{Status: []byte("null")}), wire.CodeProtocol},
		"no status either":   {"status", answer(&wirepb.Operated{Status: []byte("<html>")}), wire.CodeProtocol},
		"no swap":            {"swap", answer(&wirepb.Operated{}), wire.CodeProtocol},
		"no record":          {"swap", swapped(""), wire.CodeProtocol},
		"no state":           {"swap", swapped("{}"), wire.CodeProtocol},
		"a failed swap":      {"swap", swapped(`{"state":"Failed"}`), wire.CodeCancelled},
		"an aborted swap":    {"swap", swapped(`{"state":"Aborted","reason":"vetoed"}`), wire.CodeCancelled},
		"no moves":           {"drain", answer(&wirepb.Operated{}), wire.CodeProtocol},
		"streams remain":     {"drain", answer(&wirepb.Operated{Moves: &wirepb.MoveReport{Remaining: 1}}), wire.CodeNoWorker},
		"not balanced":       {"rebalance", answer(&wirepb.Operated{Moves: &wirepb.MoveReport{Remaining: 1}}), wire.CodeNoWorker},
		"no progress at all": {"drain", func(o *fakedirector.Operation) error { o.Send(&wirepb.Operated{}); return nil }, wire.CodeProtocol},
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
		client := t.dial(func(o *fakedirector.Operation) error { return o.Result(&wirepb.Operated{Status: []byte(document)}) })
		status, err := client.Status(t.Context())
		if err != nil || len(status.Connections) != n || string(status.Raw) != document {
			t.Errorf("got %d connections, %v", len(status.Connections), err)
		}
	})
}

func TestProgress(t *testing.T) {
	inWorld(t, func(t *world) {
		client := t.dial(func(o *fakedirector.Operation) error {
			o.Progress(&wirepb.MoveReport{Remaining: 2})
			o.Progress(&wirepb.MoveReport{Remaining: 1, Moved: 1, Failed: 1, InTheWay: []string{"conn-1 waits"}})
			return wire.Errorf(wire.CodeNoWorker, "time is over")
		})
		var seen []operator.Moves
		last, err := client.Drain(t.Context(), "worker-a", time.Nanosecond, false, func(m operator.Moves) { seen = append(seen, m) })
		want := []operator.Moves{{Remaining: 2}, {Remaining: 1, Moved: 1, Failed: 1, InTheWay: []string{"conn-1 waits"}}}
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
