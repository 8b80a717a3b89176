package quicnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// attemptDelay is how long an address has before the next one is tried beside it (RFC 8305 §5).
	attemptDelay = 250 * time.Millisecond
	// maxAttempts bounds how many addresses of one name are tried.
	maxAttempts = 64
)

// DialByName resolves target ("host:port") and dials its addresses as First does.
func DialByName[C io.Closer](
	ctx context.Context, nw Network, target string, dial func(ctx context.Context, addr string) (C, error),
) (C, error) {
	addrs, err := nw.Resolve(ctx, target)
	if err != nil {
		var none C
		return none, err
	}
	return First(ctx, addrs, dial)
}

var errNoAddress = errors.New("the name has no address")

// First dials several addresses ("ip:port") of which any will do, and returns the first connection (Happy Eyeballs, RFC
// 8305): the next address is tried as soon as one has failed, and beside those that have not answered yet 250 ms after the
// last one, the two families of IP in turn. net.Dialer does that for TCP only, and takes a connection for an answer; here dial
// says what is one, a greeting for example.
//
// Each address is tried once, the first 64 of them. The context of the others ends with the first answer; First returns when
// all of them have returned, and closes what they still bring. If no address answers, the error names each with its cause,
// and all causes are in its chain. dial is called by several goroutines.
func First[C io.Closer](
	ctx context.Context, addrs []string, dial func(ctx context.Context, addr string) (C, error),
) (C, error) {
	var none C
	if len(addrs) == 0 {
		return none, errNoAddress
	}
	addrs = inTurn(addrs)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer[C], len(addrs)) // has room for all: nobody waits to give one
	var dialling sync.WaitGroup
	begun, open := 0, 0
	more := func() bool { return begun < len(addrs) && (begun == 0 || ctx.Err() == nil) }
	begin := func(n int) {
		dialling.Go(func() {
			conn, err := dial(ctx, addrs[n])
			answers <- answer[C]{n, conn, err}
		})
		begun, open = begun+1, open+1
	}
	failed := make(failures, len(addrs))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for open > 0 || more() {
		select {
		case <-timer.C:
			if more() {
				begin(begun)
				timer.Reset(attemptDelay)
			}
		case a := <-answers:
			if open--; a.err == nil {
				cancel()
				dialling.Wait()
				discard(answers)
				return a.conn, nil
			}
			failed[a.n] = failure{addrs[a.n], a.err}
			timer.Reset(0)
		}
	}
	return none, failed[:begun]
}

// answer is what became of the address with that number.
type answer[C any] struct {
	n    int
	conn C
	err  error
}

// discard closes the connections that come too late.
func discard[C io.Closer](answers chan answer[C]) {
	close(answers)
	for late := range answers {
		if late.err == nil {
			_ = late.conn.Close() // nobody has used it
		}
	}
}

// inTurn returns the addresses with both families of IP in turn, the first one's first, and otherwise in their order: a
// family that leads nowhere holds nobody up (RFC 8305 §4).
func inTurn(addrs []string) []string {
	var first, other []string
	seen := make(map[string]bool)
	for _, addr := range addrs {
		switch {
		case seen[addr]:
		case is6(addr) == is6(addrs[0]):
			first = append(first, addr)
		default:
			other = append(other, addr)
		}
		seen[addr] = true
	}
	var all []string
	for n := range max(len(first), len(other)) {
		all = append(all, first[min(n, len(first)):min(n+1, len(first))]...)
		all = append(all, other[min(n, len(other)):min(n+1, len(other))]...)
	}
	return all[:min(len(all), maxAttempts)]
}

func is6(addr string) bool {
	parsed, err := netip.ParseAddrPort(addr)
	return err == nil && !parsed.Addr().Unmap().Is4()
}

// failure is why there is no connection to one address.
type failure struct {
	addr string
	err  error
}

// failures are those of several addresses. They read as one line, in which each cause stands once, after the addresses that
// have it.
type failures []failure

func (f failures) Error() string {
	var causes []string
	of := make(map[string][]string)
	for _, one := range f {
		cause := one.err.Error()
		if of[cause] == nil {
			causes = append(causes, cause)
		}
		of[cause] = append(of[cause], one.addr)
	}
	for i, cause := range causes {
		causes[i] = fmt.Sprintf("%s: %s", strings.Join(of[cause], ", "), cause)
	}
	return strings.Join(causes, "; ")
}

func (f failures) Unwrap() []error {
	errs := make([]error, len(f))
	for i, one := range f {
		errs[i] = one.err
	}
	return errs
}
