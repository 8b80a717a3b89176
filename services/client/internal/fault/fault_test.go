package fault_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/internal/fault"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

const protocol = "connswap/1"

// crypto is the error for an alert that came from the other side, or went there.
func crypto(alert quic.TransportErrorCode, remote bool) error {
	return &quic.TransportError{Remote: remote, ErrorCode: 0x100 + alert}
}

// dialled is how the operating system reports an error of a socket.
func dialled(err syscall.Errno) error {
	return fmt.Errorf("dialling: %w", &net.OpError{Op: "read", Net: "udp", Err: os.NewSyscallError("recvfrom", err)})
}

func TestConnection(t *testing.T) {
	known := wire.Errorf(wire.CodeLimit, "enough")
	for name, test := range map[string]struct {
		err  error
		code wire.Code
		want string // in the message
	}{
		"a code stays":         {fmt.Errorf("opening: %w", known), wire.CodeLimit, "enough"},
		"refused":              {dialled(syscall.ECONNREFUSED), wire.CodeLost, "no connection: connection refused: nothing listens there"},
		"no network":           {dialled(syscall.ENETUNREACH), wire.CodeLost, "no way to that address"},
		"no host":              {dialled(syscall.EHOSTUNREACH), wire.CodeLost, "no way to that address"},
		"firewall":             {dialled(syscall.EPERM), wire.CodeLost, "firewall"},
		"reset by TCP":         {dialled(syscall.ECONNRESET), wire.CodeLost, "without a word"},
		"end":                  {io.ErrUnexpectedEOF, wire.CodeLost, "without a word"},
		"late":                 {fmt.Errorf("reading: %w", os.ErrDeadlineExceeded), wire.CodeLost, "did not answer in time"},
		"no such host":         {&net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}, wire.CodeLost, `no such host: "nowhere"`},
		"no name server":       {&net.DNSError{Err: "i/o timeout", Name: "nowhere", IsTimeout: true}, wire.CodeLost, `no name server answers for "nowhere"`},
		"no address":           {&net.AddrError{Err: "missing port in address", Addr: "nonsense"}, wire.CodeLost, `"nonsense" is no address (missing port in address); give host:port`},
		"silent handshake":     {&quic.HandshakeTimeoutError{}, wire.CodeLost, "no answer to the handshake"},
		"silent":               {&quic.IdleTimeoutError{}, wire.CodeLost, "nothing came from the director any more"},
		"given up here":        {&quic.ApplicationError{ErrorCode: wire.QUICLost}, wire.CodeLost, "nothing came from the director any more"},
		"given up there":       {&quic.ApplicationError{Remote: true, ErrorCode: wire.QUICLost, ErrorMessage: "connection_lost: nothing came from this client for 6s"}, wire.CodeLost, "nothing came from this client for 6s"},
		"started again":        {&quic.StatelessResetError{}, wire.CodeLost, "was started again"},
		"crowded":              {&quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}, wire.CodeUnavailable, "try again later"},
		"other transport":      {&quic.TransportError{Remote: true, ErrorCode: quic.InternalError, ErrorMessage: "oh"}, wire.CodeLost, "oh"},
		"shutdown":             {&quic.ApplicationError{Remote: true, ErrorCode: wire.QUICShutdown, ErrorMessage: "shutdown: bye\x1b"}, wire.CodeShutdown, "bye"},
		"shutdown by number":   {&quic.ApplicationError{Remote: true, ErrorCode: wire.QUICShutdown}, wire.CodeShutdown, "the director closed the connection"},
		"protocol by number":   {&quic.ApplicationError{Remote: true, ErrorCode: wire.QUICProtocol, ErrorMessage: "Bad: frame"}, wire.CodeProtocol, "Bad: frame"},
		"refused by number":    {&quic.ApplicationError{Remote: true, ErrorCode: wire.QUICRefused, ErrorMessage: "No."}, wire.CodeUnavailable, "No."},
		"stream refused":       {&quic.StreamError{Remote: true, ErrorCode: wire.StreamRefused}, wire.CodeUnavailable, "reset the stream"},
		"stream cancelled":     {&quic.StreamError{Remote: true, ErrorCode: wire.StreamCancel}, wire.CodeCancelled, "reset the stream"},
		"stream stalled":       {&quic.StreamError{Remote: true, ErrorCode: wire.StreamStalled}, wire.CodeClientStall, "reset the stream"},
		"stream taken":         {&quic.StreamError{Remote: true, ErrorCode: wire.StreamTaken}, wire.CodeResumeTaken, "reset the stream"},
		"taken by number":      {&quic.ApplicationError{Remote: true, ErrorCode: wire.QUICTaken}, wire.CodeResumeTaken, "the director closed the connection"},
		"stream reset":         {&quic.StreamError{Remote: true, ErrorCode: 99}, wire.CodeInternal, "reset the stream"},
		"QUIC version":         {&quic.VersionNegotiationError{}, wire.CodeVersion, "no common version of QUIC"},
		"TLS version":          {crypto(70, true), wire.CodeVersion, "no common version of TLS"},
		"protocol":             {crypto(120, true), wire.CodeVersion, "does not speak " + protocol},
		"protocol, seen here":  {crypto(120, false), wire.CodeVersion, "does not speak " + protocol},
		"not TLS":              {tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, wire.CodeVersion, "does not speak TLS"},
		"certificate required": {crypto(116, true), wire.CodeUnauthorized, "asks for a certificate"},
		"bad certificate":      {crypto(42, true), wire.CodeUnauthorized, "one of the right role"},
		"revoked":              {crypto(44, true), wire.CodeUnauthorized, "get a new one"},
		"expired there":        {crypto(45, true), wire.CodeUnauthorized, "refuses this side's certificate (expired certificate); renew it"},
		"unknown authority":    {crypto(48, true), wire.CodeUnauthorized, "show one of the director's authority"},
		"denied":               {crypto(49, true), wire.CodeUnauthorized, "one of the right role"},
		"another alert":        {crypto(80, true), wire.CodeUnauthorized, "TLS handshake: "},
		"another alert here":   {crypto(42, false), wire.CodeUnauthorized, "TLS handshake: "},
		"stranger":             {fmt.Errorf("identity: %w", x509.UnknownAuthorityError{}), wire.CodeUnauthorized, "unknown authority"},
		"wrong role":           {fmt.Errorf("identity: %w: it is for worker.connswap", identity.ErrRole), wire.CodeUnauthorized, "no director: identity: wrong role: it is for worker.connswap"},
		"expired here": {
			x509.CertificateInvalidError{Cert: &x509.Certificate{NotAfter: time.Unix(0, 0)}, Reason: x509.Expired},
			wire.CodeUnauthorized,
			"has expired, at 1970-01-01T00:00:00Z; renew it",
		},
		"not valid yet": {
			x509.CertificateInvalidError{Cert: &x509.Certificate{NotBefore: time.Unix(1<<36, 0)}, Reason: x509.Expired},
			wire.CodeUnauthorized,
			"is not valid before ",
		},
		"another name": {&tls.CertificateVerificationError{Err: errors.New("x509: no names")}, wire.CodeUnauthorized, "is not good: x509: no names"},
		"anything":     {errors.New("anything"), wire.CodeLost, "no connection: anything"},
	} {
		t.Run(name, func(t *testing.T) {
			err := fault.Connection(test.err, protocol)
			var got *wire.Error
			if !errors.As(err, &got) || got.Code != test.code || !strings.Contains(got.Message, test.want) {
				t.Fatalf("got %v, want %s: … %s", err, test.code, test.want)
			}
			if !errors.Is(err, test.err) && !strings.Contains(fmt.Sprintf("%T", test.err), "x509") {
				t.Errorf("the cause is not in the chain of %v", err)
			}
			if strings.ContainsRune(err.Error(), '\x1b') {
				t.Errorf("not fit for a terminal: %q", err)
			}
			if again := fault.Connection(err, protocol); again != err { //nolint:errorlint // the very same
				t.Errorf("explained twice it is %v", again)
			}
		})
	}
	for name, err := range map[string]error{
		"cancelled": fmt.Errorf("dialling: %w", context.Canceled), "too late": context.DeadlineExceeded,
		"closed": fmt.Errorf("reading: %w", fault.ErrClosed),
	} {
		if got := fault.Connection(err, protocol); got != err { //nolint:errorlint // the very same
			t.Errorf("%s: got %v", name, got)
		}
	}
	var coded *wire.Error
	if err := fault.Connection(&quic.ApplicationError{}, protocol); !errors.Is(err, fault.ErrClosed) || errors.As(err, &coded) {
		t.Errorf("closed by this side: got %v", err)
	}
}

// Over TCP crypto/tls reports an alert in another way than quic-go; it means the same.
func TestAlertsOverTCP(t *testing.T) {
	ids, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := identity.NewDevelopment(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots, err := ids[identity.Client].Roots()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		client identity.Source
		alpn   string
		code   wire.Code
		want   string
	}{
		"none":           {identity.Static(nil, roots), "h2", wire.CodeUnauthorized, "asks for a certificate"},
		"wrong role":     {ids[identity.Client], "h2", wire.CodeUnauthorized, "one of the right role"},
		"other protocol": {ids[identity.Operator], "h3", wire.CodeVersion, "does not speak"},
		"stranger":       {foreign[identity.Operator], "h2", wire.CodeUnauthorized, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := pipe(t)
			server := tls.Server(there, identity.ServerTLS(ids[identity.Director], []string{"h2"}, map[string][]identity.Role{"h2": {identity.Operator}}))
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = server.Handshake() // the client sees it fail
				_, _ = io.Copy(io.Discard, there)
				_ = there.Close()
			}()
			client := tls.Client(here, identity.ClientTLS(test.client, test.alpn, identity.Director))
			_, err := client.Read(make([]byte, 1))
			_ = here.Close()
			<-done
			var got *wire.Error
			if err = fault.Connection(err, protocol); !errors.As(err, &got) || got.Code != test.code || !strings.Contains(got.Message, test.want) {
				t.Errorf("got %v, want %s: … %s", err, test.code, test.want)
			}
		})
	}
}

// pipe returns both ends of a TCP connection. (Those of net.Pipe hold nothing: two that both write wait for ever.)
func pipe(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // not under test
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return here, there
}

func TestEnded(t *testing.T) {
	own := fmt.Errorf("stream: %w", fault.ErrClosed)
	coded := wire.Errorf(wire.CodeLost, "no answer")
	for name, test := range map[string]struct {
		cause error
		want  string
		is    []error
	}{
		"cancelled":  {nil, "context canceled", []error{context.Canceled}},
		"a reason":   {errors.New("interrupt"), "context canceled: interrupt", []error{context.Canceled}},
		"closed":     {own, "stream: closed by this side", []error{fault.ErrClosed}},
		"a code":     {coded, "connection_lost: no answer", []error{coded}},
		"a deadline": {context.DeadlineExceeded, "context canceled: context deadline exceeded", []error{context.Canceled, context.DeadlineExceeded}},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(test.cause)
		err := fault.Ended(ctx)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
		for _, is := range test.is {
			if !errors.Is(err, is) {
				t.Errorf("%s: %v is not %v", name, err, is)
			}
		}
	}
}

// What is to be done is said once for each code that needs it, as the end of a sentence.
func TestAdvice(t *testing.T) {
	for code, want := range map[wire.Code]string{
		wire.CodeNoWorker: "start workers", wire.CodeShutdown: "ask again", wire.CodeInternal: "defect", wire.CodeLimit: "", "unheard_of": "",
	} {
		if got := fault.Advice(code); !strings.HasPrefix(got, want) && !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: got %q, want %q", code, got, want)
		}
	}
}
