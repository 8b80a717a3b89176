package operator

import (
	"context"
	"encoding/json"
	"time"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Moves counts streams that are being moved.
type Moves struct {
	Remaining int      `json:"remaining"` // still on the worker that is drained; for a rebalancing, still to be moved
	Moved     int      `json:"moved"`
	Failed    int      `json:"failed"`               // swaps that were given up; their streams are tried again
	InTheWay  []string `json:"in_the_way,omitempty"` // what keeps the remaining ones, for people
}

// Swap moves one stream to the worker to, or to any other one where that is empty, and waits for it. stream 0 is
// the only one of its connection.
//
// A swap that began and was given up is an error of CodeCancelled; the record tells of it even then.
func (c *Client) Swap(ctx context.Context, connection string, stream uint64, to string) (migration.Record, error) {
	var record migration.Record
	result, err := c.ask(ctx, &wirepb.Operate{Request: &wirepb.Operate_Swap{Swap: &wirepb.SwapRequest{
		ConnectionId: wire.Text(connection), StreamId: stream, ToWorker: wire.Text(to),
	}}}, unheard)
	if err != nil {
		return record, err
	}
	if result.GetSwap() == nil {
		return record, missing("swap")
	}
	if err := json.Unmarshal(result.GetSwap().GetRecord(), &record); err != nil {
		return record, fault.Wrap(wire.CodeProtocol, "the director's record of the swap", err)
	}
	return record, completed(record)
}

// completed is an error for a swap that is not.
func completed(record migration.Record) error {
	switch {
	case record.State == "":
		return missing("state of the swap")
	case record.State != migration.Completed.String() && record.Reason == "":
		return wire.Errorf(wire.CodeCancelled, "the swap ended in %s", record.State)
	case record.State != migration.Completed.String():
		return wire.Errorf(wire.CodeCancelled, "the swap ended in %s: %s", record.State, record.Reason)
	default:
		return nil
	}
}

// Drain takes a worker out of use, moves its streams to others, and waits until it is empty, for as long as
// timeout. With force it does so even if no other worker is there to take them. progress, which may be nil, gets
// how far it has come; it is called by this goroutine.
//
// The moves are the last ones known, even with an error. It is of CodeNoWorker where streams remain.
func (c *Client) Drain(
	ctx context.Context, worker string, timeout time.Duration, force bool, progress func(Moves),
) (Moves, error) {
	if timeout <= 0 {
		return Moves{}, wire.Errorf(wire.CodeInvalid, "the timeout is %v, it has to be above 0", timeout)
	}
	request := &wirepb.Operate{Request: &wirepb.Operate_Drain{Drain: &wirepb.DrainRequest{
		Worker: wire.Text(worker), TimeoutMs: uint64(max(1, timeout.Milliseconds())), Force: force,
	}}}
	ctx, cancel := within(ctx, timeout+answerTimeout)
	defer cancel()
	return c.move(ctx, request, progress)
}

// Rebalance moves streams from the fullest to the emptiest workers until they are even. It is like Drain in
// everything else, but takes as long as it takes.
func (c *Client) Rebalance(ctx context.Context, progress func(Moves)) (Moves, error) {
	return c.move(ctx, &wirepb.Operate{Request: &wirepb.Operate_Rebalance{Rebalance: &wirepb.RebalanceRequest{}}}, progress)
}

func (c *Client) move(ctx context.Context, request *wirepb.Operate, progress func(Moves)) (Moves, error) {
	var last Moves
	result, err := c.ask(ctx, request, func(operated *wirepb.Operated) {
		if operated.GetMoves() == nil {
			return
		}
		last = movesOf(operated.GetMoves())
		if progress != nil {
			progress(last)
		}
	})
	switch {
	case err != nil:
		return last, err
	case result.GetMoves() == nil:
		return last, missing("count of what was moved")
	}
	last = movesOf(result.GetMoves())
	if last.Remaining > 0 {
		return last, wire.Errorf(wire.CodeNoWorker, "not all could be moved, %d remain", last.Remaining)
	}
	return last, nil
}

func movesOf(m *wirepb.MoveReport) Moves {
	return Moves{
		Remaining: int(m.GetRemaining()), Moved: int(m.GetMoved()), Failed: int(m.GetFailed()), InTheWay: m.GetInTheWay(),
	}
}
