package cli

import (
	"fmt"
	"io"

	"github.com/connswap/connswap/services/client/operator"
)

// moves is how far a drain or a rebalancing has come, or what it came to.
type moves struct {
	outcome
	Worker string `json:"worker,omitempty"` // that is drained
	operator.Moves
}

// line is one of progress.
func (m *moves) line() string {
	said := fmt.Sprintf("%s left, %d moved", counted(uint64(m.Remaining), "stream"), m.Moved)
	if m.Worker != "" {
		said = m.Worker + ": " + said
	}
	if m.Failed > 0 {
		said += fmt.Sprintf(", %s given up and tried again", counted(uint64(m.Failed), "swap"))
	}
	return said
}

func (m *moves) show(d *textDisplay) { d.line(m.line()) }

func (m *moves) text(w io.Writer) {
	what := "balanced"
	if m.Worker != "" {
		what = m.Worker + " is empty"
	}
	fmt.Fprintf(w, "%s: %s moved", what, counted(uint64(m.Moved), "stream"))
	if m.Failed > 0 {
		fmt.Fprintf(w, ", %s given up on the way", counted(uint64(m.Failed), "swap"))
	}
	fmt.Fprintln(w)
}

func (m *moves) blockers() []string {
	var lines []string
	for _, what := range m.InTheWay {
		lines = append(lines, "in the way: "+clean(what))
	}
	return lines
}
