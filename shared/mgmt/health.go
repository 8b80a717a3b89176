package mgmt

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// healthIdle bounds how long a health question takes where nobody answers.
const healthIdle = 5 * time.Second

// Health asks the MGMT port at addr how its owner is. tlsConf is a client's for wire.ALPNMgmt. The error is a
// *wire.Error where the peer answered with one.
func Health(ctx context.Context, nw quicnet.Network, addr string, tlsConf *tls.Config) (*wirepb.HealthReply, error) {
	conn, err := quicnet.Dial(ctx, nw, addr, tlsConf, quicnet.MgmtConfig(healthIdle))
	if err != nil {
		return nil, fmt.Errorf("asking %s for its health: %w", addr, err)
	}
	defer conn.Close(wire.QUICOk, "") //nolint:errcheck // the answer is here, or a better error
	defer context.AfterFunc(ctx, func() {
		_ = conn.CloseWithError(wire.QUICOk, "") // unblocks the read below; always nil
	})()
	reply, err := Ask(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("asking %s for its health: %w", addr, err)
	}
	return reply, nil
}

// Ask is Health on a connection that is open already. A deadline of ctx bounds the answer too.
func Ask(ctx context.Context, conn *quicnet.Conn) (*wirepb.HealthReply, error) {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := stream.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if _, err := stream.Write(wire.Append(nil, &wirepb.HealthRequest{})); err != nil {
		return nil, err
	}
	_ = stream.Close() // fails where the peer wants no more of it, having answered already
	return wire.ReadMessage[*wirepb.HealthReply](wire.NewReader(stream, wire.MaxControl))
}
