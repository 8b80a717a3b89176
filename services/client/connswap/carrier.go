package connswap

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// carrier is a QUIC connection that carries a Conn. When it is lost the Conn goes on over another one. It is safe for
// concurrent use.
type carrier struct {
	quic   *quicnet.Conn
	watch  *quicnet.Watch // of the director, while streams are open
	prober *prober

	control *quic.Stream // open for as long as the QUIC connection is
	writing sync.Mutex   // to control

	answered chan struct{} // closed once one of these is set
	welcome  *wirepb.Welcome
	refused  error
}

// helloTimeout bounds the time a director takes to answer on an open connection.
const helloTimeout = 5 * time.Second

// connect completes a handshake with the director at an address.
func connect(ctx context.Context, addr string, opts Options) (*carrier, error) {
	tls := identity.ClientTLS(opts.TLS, wire.ALPNClient, identity.Director)
	conf := quicnet.ClientConfig()
	conf.KeepAlivePeriod = cmp.Or(opts.KeepAlive, conf.KeepAlivePeriod)
	qc, err := quicnet.Dial(ctx, opts.Network, addr, tls, conf)
	if err != nil {
		return nil, err
	}
	c := &carrier{quic: qc, answered: make(chan struct{}), prober: newProber(qc, conf.KeepAlivePeriod)}
	c.watch = quicnet.NewWatch(qc.Conn, cmp.Or(opts.IdleTimeout, quicnet.ClientIdleTimeout), func() {
		_ = qc.CloseWithError(wire.QUICLost, string(CodeLost)) // always nil
	})
	return c, nil
}

// Close ends the QUIC connection, and tells the director that nobody wants it any more.
func (c *carrier) Close() error { return c.quic.Close(wire.QUICOk, string(CodeCancelled)) }

// hello greets the director. It does not wait for the answer: what is sent behind it is served once there is one.
func (c *carrier) hello(ctx context.Context, m *wirepb.ClientHello) (err error) {
	if c.control, err = c.quic.OpenStreamSync(ctx); err != nil {
		return err
	}
	if _, err = c.control.Write(wire.Append(nil, m)); err != nil {
		return err
	}
	if err = c.control.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	go func() { // ends with the QUIC connection, and after helloTimeout
		defer close(c.answered)
		c.welcome, c.refused = c.readWelcome()
	}()
	return nil
}

// greeted returns the director's answer to hello. It waits for that, but not longer than helloTimeout.
func (c *carrier) greeted(ctx context.Context) (*wirepb.Welcome, error) {
	select {
	case <-c.answered:
		return c.welcome, c.refused
	case <-ctx.Done():
		return nil, fault.Ended(ctx)
	}
}

func (c *carrier) readWelcome() (*wirepb.Welcome, error) {
	welcome, err := wire.ReadMessage[*wirepb.Welcome](wire.NewReaderSize(c.control, frameLimit, wire.SmallBuffer))
	if err != nil {
		return nil, err
	}
	if v := welcome.GetVersion(); v != wire.Version {
		return nil, wire.Errorf(CodeVersion, "the director speaks version %d, this client %d", v, wire.Version)
	}
	if welcome.GetConnectionId() == "" {
		return nil, broken(ErrFrame, "a welcome without a connection id")
	}
	return welcome, nil
}

// acknowledge tells the director how far a stream was read. It never waits: a later word says all that this one would have.
func (c *carrier) acknowledge(stream, records uint64) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.control.TryWriteAll(wire.Append(nil, &wirepb.Ack{Stream: stream, Records: records}))
}

// lost returns why the QUIC connection broke, though neither side wanted its end; nil if it did not.
func (c *carrier) lost() error {
	err := context.Cause(c.quic.Context())
	var closed *quic.ApplicationError
	if !errors.As(err, &closed) {
		return err
	}
	switch {
	case closed.ErrorCode == wire.QUICLost:
		return err
	case closed.Remote && closed.ErrorCode != wire.QUICShutdown && closed.ErrorCode != wire.QUICProtocol &&
		closed.ErrorCode != wire.QUICRefused && closed.ErrorCode != wire.QUICTaken:
		return err
	}
	return nil
}
