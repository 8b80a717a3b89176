package cli

import (
	"encoding/json"
	"io"
	"time"

	"github.com/connswap/connswap/shared/command"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
)

// display is one of the two ways to show what an operation comes to.
type display interface {
	progress(u update)
	// ended is the last call. With an error the result has what is known.
	ended(r result, err error)
	// broken is why the display cannot be written any more, or nil.
	broken() error
}

// result is what an operation found or did. It is an object in JSON as well.
type result interface {
	// conclude enters how it ended.
	conclude(event string, err error)
	// text is for people, where all went well.
	text(w io.Writer)
	// blockers are lines on why it did not.
	blockers() []string
}

// update is what there is to say before the result.
type update interface {
	result
	// show shows it to people.
	show(d *textDisplay)
}

// outcome begins every result.
type outcome struct {
	Event   string    `json:"event"` // progress; done or error in the last line
	Time    time.Time `json:"time"`
	Code    wire.Code `json:"code,omitempty"` // of an error
	Message string    `json:"message,omitempty"`
}

func (o *outcome) conclude(event string, err error) {
	o.Event, o.Time = event, time.Now()
	if err != nil {
		e := describe(err)
		o.Code, o.Message = e.Code, e.Message
	}
}

func (o *outcome) text(io.Writer) {}

func (o *outcome) blockers() []string { return nil }

func newDisplay(cfg config.Operator, p Process) display {
	stdout := &sink{w: p.Stdout}
	if cfg.Output == "json" {
		encoder := json.NewEncoder(stdout)
		encoder.SetEscapeHTML(false)
		return &jsonDisplay{sink: stdout, encoder: encoder}
	}
	return &textDisplay{sink: stdout, notes: p.Stderr, terminal: p.Terminal && !p.Plain}
}

// jsonDisplay writes one object per line.
type jsonDisplay struct {
	*sink
	encoder *json.Encoder
}

func (d *jsonDisplay) progress(u update) { d.write("progress", u, nil) }

func (d *jsonDisplay) ended(r result, err error) {
	if err != nil {
		d.write("error", r, err)
		return
	}
	d.write("done", r, nil)
}

func (d *jsonDisplay) write(event string, r result, err error) {
	r.conclude(event, err)
	_ = d.encoder.Encode(r) // the sink remembers, and the results have nothing that has no JSON
}

// textDisplay shows results to people, and progress in one line on a terminal, elsewhere in a line of stderr each
// time that there is some.
type textDisplay struct {
	*sink
	notes    io.Writer // stderr
	terminal bool
	last     string // line of progress
}

// clearLine puts the cursor at the beginning of its line, and empties that (ECMA-48 §8.3.41).
const clearLine = "\r\x1b[K"

func (d *textDisplay) progress(u update) { u.show(d) }

// line shows how far something has come.
func (d *textDisplay) line(line string) {
	switch {
	case line == d.last:
		return
	case d.terminal:
		d.print(clearLine, line)
	default:
		command.Complain(d.notes, "client", line)
	}
	d.last = line
}

func (d *textDisplay) ended(r result, err error) {
	if d.terminal && d.last != "" {
		d.print(clearLine)
	}
	if err == nil {
		r.text(d.sink)
		return
	}
	for _, line := range r.blockers() {
		command.Complain(d.notes, "client", line)
	}
}
