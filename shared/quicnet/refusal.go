package quicnet

import (
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// ReportRefusals makes refused be called for each peer that this end turned away in the TLS handshake, with the alert
// that it got: "tls: bad certificate" if that is not good, or of another role, "tls: certificate required" if it has
// none. quic-go tells that to its tracer only, and that for every packet too: it is for ports with little traffic.
// refused must not block.
func ReportRefusals(conf *quic.Config, refused func(peer netip.AddrPort, reason string)) *quic.Config {
	conf.Tracer = func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return refusals{refused} }
	return conf
}

// refusals traces one connection.
type refusals struct {
	refused func(peer netip.AddrPort, reason string)
}

func (r refusals) AddProducer() qlogwriter.Recorder { return &refusalRecorder{refused: r.refused} }

func (refusals) SupportsSchemas(string) bool { return true }

type refusalRecorder struct {
	refused func(peer netip.AddrPort, reason string)
	peer    atomic.Pointer[netip.AddrPort]
}

func (r *refusalRecorder) RecordEvent(event qlogwriter.Event) {
	switch e := event.(type) {
	case qlog.StartedConnection:
		peer := e.Remote.IPv4
		if !peer.IsValid() {
			peer = e.Remote.IPv6
		}
		r.peer.Store(&peer)
	case qlog.ConnectionClosed:
		if e.Initiator == qlog.InitiatorLocal && e.ConnectionError != nil && e.ConnectionError.IsCryptoError() {
			var peer netip.AddrPort
			if known := r.peer.Load(); known != nil {
				peer = *known
			}
			r.refused(peer, e.ConnectionError.Message())
		}
	}
}

func (*refusalRecorder) Close() error { return nil }
