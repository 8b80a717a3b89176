package api

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxEvent is how many bytes an event of a stream may have, and a line of it.
const maxEvent = 1 << 20

var errEventTooLarge = errors.New("an event of more than 1 MiB")

// eventReader reads the events of a server-sent event stream (WHATWG HTML, 9.2): their data, and what older versions of llama.cpp's
// server say in a field error. Comments, other fields and events without data are passed over. A line ends with LF or CRLF; CR alone,
// which the standard has too, ends none.
//
// It is no library because that field is dropped by those, and because they read an event's lines without a bound on their sum, or an
// end within an event as a clean one.
type eventReader struct {
	in      *bufio.Reader
	begun   bool   // the first line has been read
	data    []byte // of the event that is being read
	hasData bool
	line    []byte // one that is longer than in's buffer
}

func newEventReader(in io.Reader) *eventReader {
	return &eventReader{in: bufio.NewReaderSize(in, 4<<10)}
}

// next returns the data of the next event, valid until the following call. io.EOF is the end after a complete event,
// io.ErrUnexpectedEOF that within one.
func (r *eventReader) next() ([]byte, error) {
	r.data, r.hasData = r.data[:0], false
	for {
		line, err := r.readLine()
		if err != nil {
			if errors.Is(err, io.EOF) && (r.hasData || len(line) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if len(line) > 0 {
			if err := r.field(line); err != nil {
				return nil, err
			}
			continue
		}
		if len(bytes.TrimSpace(r.data)) > 0 {
			return r.data, nil
		}
		r.data, r.hasData = r.data[:0], false
	}
}

// field takes one line of an event.
func (r *eventReader) field(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(name) {
	case "data":
		if r.hasData {
			r.data = append(r.data, '\n')
		}
		r.data = append(r.data, value...)
	case "error":
		r.data = append(append(append(r.data[:0], `{"error":`...), value...), '}')
	default:
		return nil
	}
	r.hasData = true
	if len(r.data) > maxEvent {
		return errEventTooLarge
	}
	return nil
}

// readLine returns the next line without its end, valid until the following call.
func (r *eventReader) readLine() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		r.line = r.line[:0]
		for errors.Is(err, bufio.ErrBufferFull) {
			if r.line = append(r.line, line...); len(r.line) > maxEvent {
				return nil, errEventTooLarge
			}
			line, err = r.in.ReadSlice('\n')
		}
		r.line = append(r.line, line...)
		line = r.line
	}
	if err != nil {
		return line, err
	}
	if !r.begun {
		r.begun = true
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'}), nil
}
