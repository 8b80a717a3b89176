package openai

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/shared/wire"
)

// ServeQUIC answers over a QUIC connection that speaks HTTP/3, until it ends.
func (s *Server) ServeQUIC(conn *quic.Conn) {
	leave, err := s.admit(conn.RemoteAddr(), shares.Connections)
	if err != nil {
		s.turnedAway(conn.RemoteAddr(), err)
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), wire.Text(err.Error()))
		return
	}
	defer leave()
	h, err := s.h3.NewRawServerConn(conn)
	if err != nil { // it allows no stream for settings, or has gone
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeGeneralProtocolError), "no room for settings")
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer context.AfterFunc(s.closing, func() { _ = h.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") })()
	running.Go(func() {
		for {
			stream, err := conn.AcceptUniStream(conn.Context())
			if err != nil {
				return
			}
			running.Go(func() { h.HandleUnidirectionalStream(stream) })
		}
	})
	s.serveStreams(h, conn)
}

// serveStreams answers the requests of a connection until that ends, how is the client's own affair. http3.Server's loop would have
// no bound on how long a request may take to come.
func (s *Server) serveStreams(h *http3.RawServerConn, conn *quic.Conn) {
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, s.cfg.MaxStreams) // a stream that was reset makes place for another while it still is answered
	for {
		stream, err := conn.AcceptStream(conn.Context())
		if err != nil {
			return
		}
		_ = stream.SetReadDeadline(time.Now().Add(readTimeout))
		places <- struct{}{}
		running.Go(func() {
			h.HandleRequestStream(stream)
			<-places
		})
	}
}
