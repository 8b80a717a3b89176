// Package part has the processes that the bench starts of itself.
//
// Some are the systems that the project is measured beside, and the project as one of them: a worker makes tokens, a
// relay passes them on, a client reads and checks them. All systems have the same tokens, the same steps, certificates of
// the same kind, and a client that checks the same; they differ in what is between engine and reader. The relays pass on
// and do nothing else: they fence, record and check nothing, and a stream whose worker dies is lost.
//
// The others are workers that differ from each other, for routing to tell apart.
package part

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/connswap/connswap/shared/identity"
)

// Load is what a system carries.
type Load struct {
	Streams int `json:"streams"`
	Clients int `json:"clients"` // among which the streams are divided evenly
	Rate    int `json:"rate"`    // tokens per second of each stream; 0 for as many as there can be
}

// streamTokens is the length of a stream. When one is over its client asks for the next.
const streamTokens = 10_000

// ParseLoad reads streams/clients/rate.
func ParseLoad(text string) (l Load, err error) {
	if n, err := fmt.Sscanf(text, "%d/%d/%d", &l.Streams, &l.Clients, &l.Rate); n != 3 || err != nil {
		return l, fmt.Errorf("%q: want streams/clients/tokens per second of each", text)
	}
	if l.Clients < 1 || l.Streams%l.Clients != 0 || l.Streams < 1 || l.Rate < 0 {
		return l, fmt.Errorf("%q: want streams above 0, divisible by the clients, and a rate from 0 on", text)
	}
	return l, nil
}

func (l Load) String() string { return fmt.Sprintf("%d/%d/%d", l.Streams, l.Clients, l.Rate) }

func (l Load) interval() time.Duration {
	if l.Rate == 0 {
		return 0
	}
	return time.Second / time.Duration(l.Rate)
}

// Setup is what a part is told when it starts.
type Setup struct {
	Load   Load
	Certs  string   // directory of development certificates
	Listen []string // own addresses, of a part that serves: USER, and MGMT if it has one
	Target string   // address of the part before it; of a worker of the project: of its director
	Device Device   // of the part device
}

func (s Setup) identity(role identity.Role) (identity.Source, error) {
	return identity.FromDir(s.Certs, role)
}

// Parts are all that a process can be.
var Parts = map[string]func(context.Context, Setup) (running, error){
	"device":          deviceWorker,
	"connswap/worker": connswapWorker, "connswap/client": connswapClient,
	"quic/worker": quicWorker, "quic/relay": quicRelay, "quic/client": quicClient,
	"grpc/worker": grpcWorker, "grpc/relay": grpcRelay, "grpc/client": grpcClient,
	"http/worker": httpWorker, "http/relay": httpRelay, "http/client": httpClient,
}

// running is a part that has started.
type running struct {
	failed <-chan error
	meter  *Meter                // of a client
	probe  func() (First, error) // of a client that can
}

// Result is what a client says of the time in which it was told to record.
type Result struct {
	Seconds float64 `json:"seconds"`
	Tokens  uint64  `json:"tokens"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Event   int64   `json:"event_bytes"` // of a token, as it came; 0 if nobody looked
}

// Serve is a whole process: it starts the part of that name, says that it is ready, and then does what it is told, until
// there is nobody any more to tell it anything. So no process outlives the bench.
func Serve(ctx context.Context, part string, s Setup, commands io.Reader, answers io.Writer) error {
	start := Parts[part]
	if start == nil {
		return fmt.Errorf("no part %q", part)
	}
	p, err := start(ctx, s)
	if err != nil {
		return err
	}
	fmt.Fprintln(answers, "ready")
	told := make(chan string)
	go func() {
		defer close(told)
		for lines := bufio.NewScanner(commands); lines.Scan(); {
			told <- lines.Text()
		}
	}()
	for {
		select {
		case err := <-p.failed:
			return err
		case command, more := <-told:
			if !more {
				return nil
			}
			if err := p.obey(command, answers); err != nil {
				return err
			}
		}
	}
}

func (p running) obey(command string, answers io.Writer) error {
	switch command {
	case "record":
		p.meter.record()
		_, err := fmt.Fprintln(answers, "recording")
		return err
	case "stop":
		return json.NewEncoder(answers).Encode(p.meter.stop())
	case "probe":
		first, err := p.probe()
		if err != nil {
			return err
		}
		return json.NewEncoder(answers).Encode(first)
	default:
		return fmt.Errorf("told to %q", command)
	}
}
