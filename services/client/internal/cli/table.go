package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// writeTable writes rows in columns; the first one is the head. An empty cell gets a dash.
func writeTable(w io.Writer, rows [][]any) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = clean(fmt.Sprint(cell)); cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	_ = table.Flush() // the sink remembers
}

// clean makes what others say fit for a line: it can neither steer a terminal nor look like several lines.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}

// age is how long something has been at now, as people read it; empty if it is not known since when.
func age(since, now time.Time) string {
	if since.IsZero() {
		return ""
	}
	return max(0, now.Sub(since)).Round(time.Second).String()
}

// spent is a number of milliseconds as people read it.
func spent(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	if d >= 10*time.Second {
		return d.Round(time.Second).String()
	}
	return rounded(d)
}
