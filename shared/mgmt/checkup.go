package mgmt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// checkTimeout is how long a part may take to answer before it counts as stuck.
const checkTimeout = time.Second

// Checkup asks the parts of a process that do its work whether they do. It answers in time even if one of them is stuck
// for good. All methods may be called from any goroutine.
type Checkup struct {
	parts []*part
}

// part is one part. Its question is asked on a goroutine of its own, one at a time: a part that is stuck keeps that one,
// which no one can wait for, and no more of them.
type part struct {
	name string
	ask  func() error

	mu    sync.Mutex
	asked *question // under way; nil for none
}

type question struct {
	since    time.Time
	answered chan struct{} // closed once err is there
	err      error
}

// Add adds a part. ask goes through the part as its work does, takes its locks and waits for its loops; the error says
// in words what does not work. Add comes before Ask.
func (c *Checkup) Add(name string, ask func() error) {
	c.parts = append(c.parts, &part{name: name, ask: ask})
}

// Ask returns nil if all parts work, or an error that names those that do not. It takes no longer than checkTimeout.
func (c *Checkup) Ask() error {
	questions := make([]*question, len(c.parts))
	for i, p := range c.parts {
		questions[i] = p.begin()
	}
	timeUp, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	var errs []string
	for i, q := range questions {
		if err := q.wait(timeUp); err != nil {
			errs = append(errs, fmt.Sprintf("%s: %v", c.parts[i].name, err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New(strings.Join(errs, "; "))
}

// begin asks, unless an earlier question is not answered yet: then that one is the question.
func (p *part) begin() *question {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil {
		return p.asked
	}
	q := &question{since: time.Now(), answered: make(chan struct{})}
	p.asked = q
	go func() {
		err := p.ask()
		p.mu.Lock()
		p.asked = nil
		p.mu.Unlock()
		q.err = err
		close(q.answered)
	}()
	return q
}

// wait returns the answer, or that there is none.
func (q *question) wait(ctx context.Context) error {
	select {
	case <-q.answered:
		return q.err
	default:
	}
	select {
	case <-q.answered:
		return q.err
	case <-ctx.Done():
		return fmt.Errorf("stuck, no answer for %v", time.Since(q.since).Round(time.Millisecond))
	}
}
