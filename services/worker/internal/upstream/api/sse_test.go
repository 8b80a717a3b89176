package api

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestEventReader(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	cases := []struct {
		name, stream string
		want         []string
		end          error
	}{
		{"LF", "data: a\n\ndata: b\n\n", []string{"a", "b"}, io.EOF},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}, io.EOF},
		{"BOM", "\xef\xbb\xbfdata: a\n\n", []string{"a"}, io.EOF},
		{"one space is no part of a value", "data:a\n\ndata:  b\n\n", []string{"a", " b"}, io.EOF},
		{"lines of one event", "data: a\ndata: b\n\n", []string{"a\nb"}, io.EOF},
		{"comments and fields", ": ping\n\n:\n\nevent: x\nid: 1\nretry: 3\ndata: a\nother\n\nid: 2\n\n", []string{"a"}, io.EOF},
		{"no data", "data\n\ndata:\n\ndata: \n\n", nil, io.EOF},
		{"a field error", "error: {\"code\":1}\n\n", []string{`{"error":{"code":1}}`}, io.EOF},
		{"longer than the buffer", "data: " + long + "\n\ndata: b\n\n", []string{long, "b"}, io.EOF},
		{"the last one has no end", "data: a\n\ndata: b\n", []string{"a"}, io.ErrUnexpectedEOF},
		{"the last line has no end", "data: a\n\ndata: b", []string{"a"}, io.ErrUnexpectedEOF},
		{"nothing", "", nil, io.EOF},
		{"too long a line", "data: a\n\ndata: " + strings.Repeat(long, 11) + "\n\n", []string{"a"}, errEventTooLarge},
		{"too long a comment", ":" + strings.Repeat(long, 11), nil, errEventTooLarge},
		{"too many lines", strings.Repeat("data: "+long+"\n", 11) + "\n", nil, errEventTooLarge},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newEventReader(strings.NewReader(c.stream))
			got := []string(nil)
			for {
				data, err := r.next()
				if err != nil {
					if !errors.Is(err, c.end) || !slices.Equal(got, c.want) {
						t.Errorf("%.99q, %v", got, err)
					}
					return
				}
				got = append(got, string(data))
			}
		})
	}
}
