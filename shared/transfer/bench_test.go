package transfer

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/mgmt"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func states() map[string][]byte {
	return map[string][]byte{
		"random": noise(16 * mib),
		"text":   bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog, "), 16*mib/45),
	}
}

func BenchmarkCompress(b *testing.B) {
	for name, state := range states() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(state)))
			b.ReportAllocs()
			for b.Loop() {
				compress(b, 1, state)
			}
		})
	}
}

func BenchmarkState(b *testing.B) {
	for name, state := range states() {
		b.Run(name, func(b *testing.B) {
			snapshot := compress(b, 1, state)
			b.SetBytes(int64(len(state)))
			for b.Loop() {
				if _, err := snapshot.State(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPull is a whole pull on the loopback, handshake included.
func BenchmarkPull(b *testing.B) {
	for name, state := range states() {
		b.Run(name, func(b *testing.B) { pullOverLoopback(b, compress(b, 1, state)) })
	}
}

func pullOverLoopback(b *testing.B, snapshot *Snapshot) {
	sources, err := identity.NewDevelopment(time.Now())
	require.NoError(b, err)
	h := newHolder()
	server := &Server{Store: NewStore(64 * mib), Show: h.show, Log: zap.NewNop()}
	defer server.Store.Close()
	require.NoError(b, server.Store.Put(checkpoint, snapshot, 0))
	srv := mgmt.Server{Stream: func(ctx context.Context, s mgmt.Stream, first wire.Message) error {
		ask, _ := first.(*wirepb.Pull)
		return server.Serve(ctx, s, ask)
	}}
	l := listen(b, quicnet.OS{}, "127.0.0.1:0", sources)
	ctx, stop := context.WithCancel(b.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, l) }()
	defer func() { stop(); require.NoError(b, <-served) }()

	p := NewPuller(PullerConfig{Network: quicnet.OS{}, TLS: sources[identity.Worker], Name: "target", MaxState: 64 * mib, Log: zap.NewNop()})
	defer p.Close()
	b.SetBytes(int64(snapshot.Size()))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		one := token(1)
		one.Secret = append(one.Secret[:28], byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		h.allow(one)
		ask := fetch(one)
		ask.Addr = l.Addr().String()
		_, err := p.Pull(ctx, identity.Worker, ask)
		require.NoError(b, err)
	}
}
