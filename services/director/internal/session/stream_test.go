package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire"
)

// fakeStream is a client's stream whose window can be full.
type fakeStream struct {
	full      bool
	unblock   chan struct{}   // a blocked Write goes on when it is closed
	cancelled chan struct{}   // closed by CancelWrite
	ctx       context.Context // of the stream; if it is nil, one that never ends
	written   bytes.Buffer
}

func (f *fakeStream) TryWriteAll(p []byte) error {
	if f.full {
		return quic.ErrWouldBlock
	}
	f.written.Write(p)
	return nil
}

func (f *fakeStream) Write(p []byte) (int, error) {
	select {
	case <-f.unblock:
		return f.written.Write(p)
	case <-f.cancelled:
		return 0, context.Canceled
	}
}

func (f *fakeStream) CancelWrite(quic.StreamErrorCode) { close(f.cancelled) }
func (f *fakeStream) Close() error                     { return nil }

func (f *fakeStream) Context() context.Context {
	if f.ctx == nil {
		return context.Background()
	}
	return f.ctx
}

// tokens returns how many tokens were written, in order from 1.
func (f *fakeStream) tokens(t *testing.T) uint64 {
	r := wire.NewReader(bytes.NewReader(f.written.Bytes()), wire.MaxControl)
	for n := uint64(0); ; n++ {
		frame, err := r.Next()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseToken(frame.Body)
		if err != nil || got.Sequence != n+1 {
			t.Fatalf("token %d after %d, %v", got.Sequence, n, err)
		}
	}
}
