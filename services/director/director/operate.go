package director

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/connswap/connswap/services/director/internal/maintenance"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/migration"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// progressEvery is how often an operator hears how far a request is, at most.
const progressEvery = 200 * time.Millisecond

// errOperatorLeft ends a request whose operator has closed the stream.
var errOperatorLeft = errors.New("the operator gave it up")

// operate does what an operator asks for. The request is given up when the operator resets the stream or goes away.
func (d *Director) operate(ctx context.Context, s mgmt.Stream, m *wirepb.Operate) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.Context(), func() { cancel(errOperatorLeft) })() // its end of what we write
	if _, err := s.Reader.Next(); !errors.Is(err, io.EOF) {
		return wire.Errorf(wire.CodeProtocol, "an operator's stream must end after Operate")
	}
	answer, err := d.execute(ctx, s, m)
	if err != nil {
		return wire.AsError(err, wire.CodeInternal)
	}
	answer.Result = true
	_, err = s.Write(wire.Append(nil, answer))
	return err
}

// execute does one request and returns its result. ctx ends when the operator gives the request up.
func (d *Director) execute(ctx context.Context, s mgmt.Stream, m *wirepb.Operate) (*wirepb.Operated, error) {
	switch r := m.GetRequest().(type) {
	case *wirepb.Operate_Status:
		document, err := json.Marshal(d.statusDocument(true))
		return &wirepb.Operated{Status: document}, err
	case *wirepb.Operate_Swap:
		record, err := d.maintenance.Swap(ctx, r.Swap.GetConnectionId(), r.Swap.GetStreamId(), r.Swap.GetToWorker())
		if err != nil {
			return nil, err
		}
		return reported(record)
	case *wirepb.Operate_Drain:
		timeout := time.Duration(min(r.Drain.GetTimeoutMs(), maxTimeout)) * time.Millisecond
		moves, err := d.maintenance.Drain(ctx, r.Drain.GetWorker(), timeout, r.Drain.GetForce(), progress(s))
		return &wirepb.Operated{Moves: moved(moves)}, err
	case *wirepb.Operate_Undrain:
		return &wirepb.Operated{Message: r.Undrain.GetWorker() + " is back in use"}, d.maintenance.Undrain(r.Undrain.GetWorker())
	case *wirepb.Operate_Rebalance:
		moves, err := d.maintenance.Rebalance(ctx, progress(s))
		return &wirepb.Operated{Moves: moved(moves)}, err
	case *wirepb.Operate_Decide:
		err := d.maintenance.Decide(r.Decide.GetConnectionId(), r.Decide.GetStreamId(), r.Decide.GetConfirm(), wire.Text(r.Decide.GetReason()))
		return &wirepb.Operated{Message: map[bool]string{true: "confirmed", false: "vetoed"}[r.Decide.GetConfirm()]}, err
	}
	return nil, wire.Errorf(wire.CodeInvalid, "nothing that this director can do; is the client newer?")
}

// reported is a swap as operators get it: the document is that of /v1/swaps.
func reported(record migration.Record) (*wirepb.Operated, error) {
	document, err := json.Marshal(record)
	return &wirepb.Operated{Swap: &wirepb.SwapReport{Record: document}}, err
}

// progress returns a function that tells the operator how far a request is, when there is news and not too often. An
// operator that does not read misses some of it.
func progress(s mgmt.Stream) func(maintenance.Moves) {
	var lastTime time.Time
	var last *wirepb.MoveReport
	return func(m maintenance.Moves) {
		now, report := time.Now(), moved(m)
		if now.Sub(lastTime) < progressEvery || last != nil && last.String() == report.String() {
			return
		}
		lastTime, last = now, report
		_ = s.TryWriteAll(wire.Append(nil, &wirepb.Operated{Moves: report})) // if it fails, the operator is gone or slow
	}
}

// moved is the progress of a drain or a rebalancing as operators get it.
func moved(m maintenance.Moves) *wirepb.MoveReport {
	report := &wirepb.MoveReport{Remaining: uint32(m.Remaining), Moved: uint32(m.Moved), Failed: uint32(m.Failed)}
	for _, text := range m.Blockers {
		report.InTheWay = append(report.InTheWay, wire.Text(text))
	}
	return report
}
