package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/shared/wire"
)

// Connection gives an error of a connection its Code and its sentence; protocol is the one that this side speaks (ALPN). An
// error that has a Code, and the end of the caller's context, stay as they are; one of a connection that this side has closed
// becomes an [ErrClosed] without a Code.
func Connection(err error, protocol string) error {
	var (
		known     *wire.Error
		closed    *quic.ApplicationError
		reset     *quic.StreamError
		version   *quic.VersionNegotiationError
		transport *quic.TransportError
	)
	switch {
	case errors.As(err, &known), errors.Is(err, ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case wire.LostPeer(err):
		return lost(err, "nothing came from the director any more")
	case errors.As(err, &closed):
		return closing(closed)
	case errors.As(err, &reset):
		return New(resetCode(reset.ErrorCode), err, "the director reset the stream: %v", err)
	case errors.As(err, &version):
		return Wrap(wire.CodeVersion, "no common version of QUIC", err)
	case errors.As(err, &transport) && transport.Remote && transport.ErrorCode == quic.ConnectionRefused:
		return New(wire.CodeUnavailable, err, "the director has as many handshakes under way as it may; try again later")
	}
	if code, sentence := handshake(err, protocol); sentence != "" {
		return New(code, err, "%s", sentence)
	}
	return lost(err, network(err))
}

// lost is for a director that cannot be reached, or no longer.
func lost(err error, why string) error { return New(wire.CodeLost, err, "no connection: %s", why) }

// network says what is wrong with the way to the director.
func network(err error) string {
	var (
		name    *net.DNSError
		addr    *net.AddrError
		timeout *quic.HandshakeTimeoutError
		unknown *quic.StatelessResetError
	)
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return fmt.Sprintf("no such host: %q has no address; look at the name", name.Name)
	case errors.As(err, &name) && (name.IsTimeout || name.IsTemporary):
		return fmt.Sprintf("no name server answers for %q; look at this machine's network", name.Name)
	case errors.As(err, &addr):
		return fmt.Sprintf("%q is no address (%s); give host:port", addr.Addr, addr.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nothing listens there"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "network unreachable: there is no way to that address from here"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "not permitted: a firewall of this machine lets nothing out to that address"
	case errors.As(err, &timeout):
		return "no answer to the handshake: no director is there, or a firewall lets nothing through"
	case errors.As(err, &unknown):
		return "the director was started again, and knows nothing of this connection"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the director ended it without a word"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "the director did not answer in time"
	default:
		return err.Error()
	}
}

// closing reads the reason of a CONNECTION_CLOSE: a Code, and perhaps a message after a colon.
func closing(closed *quic.ApplicationError) error {
	if !closed.Remote {
		return fmt.Errorf("connection: %w", ErrClosed)
	}
	reason := wire.Text(closed.ErrorMessage)
	code, message, _ := strings.Cut(reason, ":")
	if code == "" || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		code, message = string(closeCode(closed.ErrorCode)), reason
	}
	if message = strings.TrimSpace(message); message == "" {
		message = "the director closed the connection"
	}
	return New(wire.Code(code), closed, "%s", message)
}

func closeCode(code quic.ApplicationErrorCode) wire.Code {
	switch code {
	case wire.QUICShutdown:
		return wire.CodeShutdown
	case wire.QUICProtocol:
		return wire.CodeProtocol
	case wire.QUICRefused:
		return wire.CodeUnavailable
	case wire.QUICTaken:
		return wire.CodeResumeTaken
	default:
		return wire.CodeLost
	}
}

func resetCode(code quic.StreamErrorCode) wire.Code {
	switch code {
	case wire.StreamRefused:
		return wire.CodeUnavailable
	case wire.StreamCancel:
		return wire.CodeCancelled
	case wire.StreamStalled:
		return wire.CodeClientStall
	case wire.StreamTaken:
		return wire.CodeResumeTaken
	default:
		return wire.CodeInternal
	}
}
