package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

func silent(message string) *Error { return &Error{Fault: Silent, Message: message} }

func broken(message string) *Error { return &Error{Fault: Broken, Message: message} }

// unsupported is the error of a call that this kind of server cannot be asked for.
func unsupported(what string, err error) *Error {
	return &Error{Fault: Denied, Message: what, Err: err}
}

// statusError returns what an answer with a status other than 2xx means. doc is at most a byte longer than maxError.
func statusError(status int, header http.Header, doc []byte) *Error {
	said := parseSaid(doc)
	e := &Error{Status: status, Message: said.message, After: retryAfter(header, time.Now())}
	e.Message = cmp.Or(e.Message, http.StatusText(status), "status "+strconv.Itoa(status))
	if len(doc) <= maxError && json.Valid(doc) {
		e.Document = doc
	}
	e.Fault = faultOfStatus(status)
	switch {
	case status/100 == 3:
		e.Message = "it redirects to " + header.Get("Location") + ", which is not followed"
	case e.Fault != Denied && e.Fault != Busy && said.isBeyond():
		e.Fault = Rejected
	case status == http.StatusServiceUnavailable && said.isFull():
		e.Fault = Busy
	}
	return e
}

func faultOfStatus(status int) Fault {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusUnprocessableEntity,
		http.StatusRequestHeaderFieldsTooLarge, http.StatusUnavailableForLegalReasons:
		return Rejected
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests, 529:
		return Busy
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return Gone
	case http.StatusNotImplemented:
		return Denied
	}
	if status >= 500 {
		return Failed
	}
	return Denied
}

// errorIn returns the error that a document says, or nil: one in an answer with status 200, or in a stream.
func errorIn(doc []byte) error {
	if !bytes.Contains(doc, []byte(`error`)) {
		return nil
	}
	said := parseSaid(doc)
	if !said.isError {
		return nil
	}
	e := &Error{Fault: Failed, Status: said.status, Message: cmp.Or(said.message, "an error without a message")}
	if len(doc) <= maxError {
		e.Document = bytes.Clone(doc)
	}
	switch {
	case said.status == http.StatusBadRequest, said.status == http.StatusNotFound, said.status == http.StatusRequestEntityTooLarge,
		said.status == http.StatusUnprocessableEntity, said.isBeyond(), said.status == 0 && said.isInvalid():
		e.Fault = Rejected
	case said.status == http.StatusUnauthorized, said.status == http.StatusForbidden:
		e.Fault = Denied
	case said.status == http.StatusTooManyRequests, said.isFull():
		e.Fault = Busy
	}
	return e
}

// said is what a document says is wrong.
type said struct {
	isError bool
	message string
	kind    string // error.type
	code    string // error.code
	status  int    // error.code or error.status, if it is a number of HTTP
}

// parseSaid reads the forms that servers have: OpenAI's {"error":{…}}, {"error":"…"}, {"object":"error",…}, FastAPI's {"detail":…}.
func parseSaid(doc []byte) said {
	if !json.Valid(doc) {
		return said{message: shorten(strings.ToValidUTF8(string(doc), "?"))}
	}
	root := gjson.ParseBytes(doc)
	object := root.Get("error")
	switch {
	case object.IsObject():
	case object.Type == gjson.String && object.Str == "":
		return said{}
	case object.Type == gjson.String:
		return said{isError: true, message: shorten(object.Str), status: statusOf(root)}
	case object.Exists() && object.Type != gjson.Null && object.Type != gjson.False:
		return said{isError: true, message: shorten(object.Raw)}
	case root.Get("object").Str == "error":
		object = root
	default:
		return said{message: shorten(cmp.Or(root.Get("detail").String(), root.Get("message").String()))}
	}
	return said{
		isError: true,
		message: shorten(cmp.Or(object.Get("message").String(), object.Get("error").String())),
		kind:    object.Get("type").String(),
		code:    object.Get("code").String(),
		status:  statusOf(object),
	}
}

func statusOf(object gjson.Result) int {
	for _, name := range []string{"code", "status", "status_code"} {
		if n := object.Get(name).Int(); n >= 400 && n < 600 {
			return int(n)
		}
	}
	return 0
}

// is reports whether the code or the type is one of these, in lower case.
func (s said) is(names ...string) bool {
	return slices.Contains(names, strings.ToLower(s.code)) || slices.Contains(names, strings.ToLower(s.kind))
}

// isInvalid reports whether the request is said to be at fault, by words that some servers use for whatever goes wrong.
func (s said) isInvalid() bool {
	return s.is("invalid_request_error", "badrequesterror", "bad_request_error", "invalid_prompt")
}

// isBeyond reports whether the request is too long, or not allowed, whatever the status.
func (s said) isBeyond() bool {
	if s.is("context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "content_filter", "content_filter_error",
		"content_policy_violation") {
		return true
	}
	message := strings.ToLower(s.message)
	for _, part := range []string{
		"maximum context length", "context length exceeded", "exceeds the available context size", "model's context length",
		"exceeds the context", "exceeds context length", "content filter", "content management policy", "maximum model length",
	} {
		if strings.Contains(message, part) {
			return true
		}
	}
	return false
}

// isFull reports whether a server that is unavailable has too much to do, rather than being gone.
func (s said) isFull() bool {
	if s.is("rate_limit_exceeded", "rate_limit_error", "overloaded_error") {
		return true
	}
	message := strings.ToLower(s.message)
	for _, part := range []string{"queue is full", "queue full", "server busy", "maximum pending", "overloaded", "too many"} {
		if strings.Contains(message, part) {
			return true
		}
	}
	return false
}

// retryAfter returns how long a server asks to wait, at least 0.
func retryAfter(header http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(header.Get("Retry-After-Ms"), 64); err == nil && ms >= 0 && ms < 1e12 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 && seconds < 1e9 {
		return time.Duration(seconds * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// redact takes the key out of what a server says: some repeat it.
func redact(doc []byte, key string) []byte {
	if key == "" {
		return doc
	}
	return bytes.ReplaceAll(doc, []byte(key), []byte("[key]"))
}

// shorten returns the beginning of a message.
func shorten(message string) string {
	const most = 500
	message = strings.TrimSpace(message)
	if len(message) <= most {
		return message
	}
	return fmt.Sprintf("%s … (%d bytes)", strings.ToValidUTF8(message[:most], ""), len(message))
}
