package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/command"
)

// textOutput is for people: the text itself as it comes, in whole characters; on a terminal with a mark where another worker
// took over. What is not the text goes to notes.
type textOutput struct {
	*sink
	notes    io.Writer // stderr
	terminal bool
	plain    bool // without escapes
	midLine  bool // the text does not end with a newline so far
	chars    characters
	reason   string
}

func (o *textOutput) connected(*report) {}

func (o *textOutput) event(_ *report, event connswap.Event) {
	switch e := event.(type) {
	case connswap.Waiting:
		o.writeNote("waiting for a worker, up to %v: %s", e.Timeout, e.Reason)
	case connswap.Recovering:
		o.writeRecovery(e)
	case connswap.Token:
		if e.Choice == 0 && e.Channel == connswap.Content { // the others are for programs
			o.text(o.chars.add(e.Text))
		}
	case connswap.Swapped:
		o.writeSwap(e)
	case connswap.Resumed:
		o.writeMark("connection resumed, +" + rounded(max(0, e.Gap-e.Interval)))
	case connswap.Done:
		o.reason = e.FinishReason
	case connswap.Assigned:
	}
}

func (o *textOutput) text(text string) {
	if text == "" {
		return
	}
	o.midLine = !strings.HasSuffix(text, "\n")
	o.print(o.harmless(text))
}

// writeSwap says which worker went on, and by how much the pause was longer than that between any two tokens.
func (o *textOutput) writeSwap(e connswap.Swapped) {
	mark := fmt.Sprintf("%s → %s", e.From, e.To)
	if e.Gap > 0 {
		mark += ", +" + rounded(max(0, e.Gap-e.Interval))
	}
	if e.Continuity != "exact" {
		mark += ", " + e.Continuity
	}
	o.writeMark(mark)
}

// writeRecovery says how far the next worker is; of a prompt that is read nobody knows.
func (o *textOutput) writeRecovery(e connswap.Recovering) {
	if e.Of == 0 {
		o.writeNote("%s reads the prompt", e.Worker)
		return
	}
	o.writeNote("%s catches up, %d of %d", e.Worker, e.At, e.Of)
}

// writeMark says that something happened between two tokens: on a terminal within the text, elsewhere the text stays alone.
func (o *textOutput) writeMark(mark string) {
	if !o.terminal {
		o.writeNote("%s", mark)
		return
	}
	mark = o.harmless(" ⟨" + mark + "⟩")
	if !o.plain {
		mark = "\x1b[2m" + mark + "\x1b[22m" // faint, and normal again (ECMA-48 §8.3.117)
	}
	o.midLine = true
	o.print(mark)
}

// writeNote writes a line between the text. On a terminal it does not continue the text's line.
func (o *textOutput) writeNote(format string, args ...any) {
	if o.terminal && o.midLine {
		o.print("\n")
		o.midLine = false
	}
	command.Complain(o.notes, "client", o.harmless(fmt.Sprintf(format, args...)))
}

func (o *textOutput) ended(r *report, err error) {
	o.text(o.chars.end())
	if o.midLine {
		o.print("\n")
		o.midLine = false
	}
	if r.connection != "" {
		o.writeNote("%s", o.summary(r, err))
	}
}

// summary is the last line.
func (o *textOutput) summary(r *report, err error) string {
	var b strings.Builder
	b.WriteString(counted(r.sequence, "token"))
	if len(r.workers) > 0 {
		fmt.Fprintf(&b, " from %s", strings.Join(r.workers, ", "))
	}
	fmt.Fprintf(&b, ", %s", counted(uint64(r.swaps), "swap"))
	if r.longest.Gap > 0 {
		fmt.Fprintf(&b, " (longest pause %s, usual %s)", rounded(r.longest.Gap), rounded(r.longest.Interval))
	}
	if err == nil {
		fmt.Fprintf(&b, ", complete (%s)", o.reason)
	} else {
		b.WriteString(", not complete")
	}
	same := "the same QUIC connection from start to end"
	switch {
	case r.resumes > 0 && r.now == r.start:
		same = fmt.Sprintf("resumed %s, the same id over %s", counted(uint64(r.resumes), "time"), counted(uint64(r.resumes)+1, "QUIC connection"))
	case !r.sameConnection():
		same = "NOT the same QUIC connection from start to end"
	}
	fmt.Fprintf(&b, "; %s: %s (ODCID %s, exporter %s)", r.connection, same, r.now.ODCID, r.now.Exporter)
	return b.String()
}

// harmless drops control characters on the way to a terminal: what a director sends shall not steer it. Bytes that are no
// character become U+FFFD there; some terminals take them for controls.
func (o *textOutput) harmless(text string) string {
	if !o.terminal {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if !unicode.IsControl(r) || r == '\n' || r == '\t' {
			b.WriteRune(r)
		}
		text = text[n:]
	}
	return b.String()
}

// rounded is a duration in milliseconds as people read it.
func rounded(d time.Duration) string {
	if d > 0 && d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", milliseconds(d))
	}
	return fmt.Sprintf("%.0f ms", milliseconds(d))
}

func counted(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
