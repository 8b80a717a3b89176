package quicnet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
)

// Proof identifies one QUIC connection beyond doubt. Both values are equal at both ends, stay what they are
// for as long as the connection lives, and differ for any other connection. (The connection ids on the wire
// prove nothing: they rotate.)
type Proof struct {
	ODCID    string // original destination connection id (RFC 9000 §7.3), hex
	Exporter string // 16 bytes exported from the TLS session (RFC 8446 §7.5), hex
}

const exporterLabel = "EXPORTER-connswap-same-connection"

// ExporterHash is the SHA-256 of the exporter's bytes, hex. It may be shown to anybody: who knows the exporter recognizes
// the connection, and who does not learns nothing of it.
func (p Proof) ExporterHash() string {
	material, err := hex.DecodeString(p.Exporter)
	if err != nil || len(material) == 0 {
		return ""
	}
	hash := sha256.Sum256(material)
	return hex.EncodeToString(hash[:])
}

// ReadProof reads both values from the connection as it is now. The connection must come from Listen or Dial
// with ClientConfig or ServeClientsConfig.
func ReadProof(conn *quic.Conn) (Proof, error) {
	tls := conn.ConnectionState().TLS
	material, err := tls.ExportKeyingMaterial(exporterLabel, nil, 16)
	if err != nil {
		return Proof{}, fmt.Errorf("exporting keying material: %w", err)
	}
	p := Proof{Exporter: hex.EncodeToString(material)}
	if odcid, ok := conn.Context().Value(proofKey{}).(*atomic.Value); ok {
		p.ODCID, _ = odcid.Load().(string)
	}
	return p, nil
}

type proofKey struct{}

// withODCID gives the tracer a place for the connection's original destination connection id.
func withODCID(ctx context.Context) context.Context {
	return context.WithValue(ctx, proofKey{}, new(atomic.Value))
}

// withProof makes quic-go tell the ODCID of each connection; it does so through its tracer only.
func withProof(conf *quic.Config) *quic.Config {
	conf.Tracer = func(ctx context.Context, _ bool, odcid quic.ConnectionID) qlogwriter.Trace {
		if v, ok := ctx.Value(proofKey{}).(*atomic.Value); ok {
			v.Store(odcid.String())
		}
		return nil
	}
	return conf
}
