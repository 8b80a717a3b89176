package openai

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/shared/wire"
)

// failure is an answer that is an error, in OpenAI's shape.
type failure struct {
	status  int
	kind    string // error.type
	code    string // error.code; empty for null
	param   string // error.param: the field that is wrong; empty for null
	message string

	document []byte // the whole body, as an inference server said it; nil for one that is made of the above

	after time.Duration // when to try again; 0 for no word on that
	retry string        // x-should-retry: true or false; empty for the client's own judgement
}

func (f *failure) Error() string { return f.message }

// Types of errors, as OpenAI's clients know them.
const (
	invalidRequest = "invalid_request_error"
	rateLimit      = "rate_limit_error"
	serverError    = "server_error"
	unsupported    = "unsupported_error"
)

// invalid refuses a request because of a field, or of something else if param is empty.
func invalid(param, message string) *failure {
	return &failure{status: http.StatusBadRequest, kind: invalidRequest, param: param, message: message}
}

// errStandby refuses a standby to a key that may not have one.
var errStandby = &failure{
	status: http.StatusForbidden, kind: invalidRequest, code: "standby_not_allowed", retry: "false",
	message: "this key may not ask for a standby (x-connswap-standby); leave that out, or have it allowed: standby: true",
}

// busyAfter is when a client may come again that was refused for want of something that others will give back soon.
const busyAfter = time.Second

// longestRetry is as long as OpenAI's clients wait before they try again. Those that are told of a longer time would try again
// within seconds.
const longestRetry = time.Minute

// failureOf says what a client is told of an error.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	e := wire.AsError(err, wire.CodeInternal)
	f = &failure{status: http.StatusInternalServerError, kind: serverError, code: string(e.Code), message: e.Message}
	switch e.Code { //nolint:exhaustive // all others are as above
	case wire.CodeInvalid:
		f.status, f.kind, f.code = cmp.Or(e.Status, http.StatusBadRequest), invalidRequest, ""
		f.document = documentOf(e)
	case wire.CodeModel:
		f.status, f.kind, f.param = http.StatusNotFound, invalidRequest, "model"
	case wire.CodeForbidden: // as OpenAI says it of a model
		f.status, f.kind, f.code = http.StatusForbidden, invalidRequest, string(wire.CodeModel)
	case wire.CodeNotFound:
		f.status, f.kind = http.StatusNotFound, invalidRequest
	case wire.CodeConflict:
		f.status, f.kind = http.StatusConflict, invalidRequest
	case wire.CodeUnauthorized:
		f.status, f.kind, f.code = http.StatusUnauthorized, invalidRequest, "invalid_api_key"
	case wire.CodeLimit:
		f.status, f.kind, f.code, f.after = http.StatusTooManyRequests, rateLimit, "rate_limit_exceeded", busyAfter
		var used *keys.Refusal
		if errors.As(err, &used) {
			f.after, f.retry = used.After, strconv.FormatBool(used.After <= longestRetry)
		}
	case wire.CodeNoWorker, wire.CodeShutdown:
		f.status, f.after, f.retry = http.StatusServiceUnavailable, busyAfter, "true"
	case wire.CodePoison:
		f.retry = "false" // it may be the request that kills them
	}
	return f
}

// documentOf returns what an inference server said of a request, if it is in OpenAI's shape; else nil.
func documentOf(e *wire.Error) []byte {
	var said struct {
		Error *struct {
			Message *string `json:"message"`
		} `json:"error"`
	}
	if len(e.Document) == 0 || json.Unmarshal(e.Document, &said) != nil || said.Error == nil || said.Error.Message == nil {
		return nil
	}
	return e.Document
}

// body is the JSON document. Without a code it has null.
func (f *failure) body() []byte {
	if f.document != nil {
		return f.document
	}
	type words struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	b, _ := json.Marshal(struct { // strings always can be
		Error words `json:"error"`
	}{words{f.message, f.kind, orNull(f.param), orNull(f.code)}})
	return b
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// write answers with it.
func (f *failure) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Trailer")
	if f.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.after+time.Second-1)/time.Second)))
		h.Set("Retry-After-Ms", strconv.FormatInt(f.after.Milliseconds(), 10))
	}
	if f.retry != "" {
		h.Set("X-Should-Retry", f.retry)
	}
	if f.status == http.StatusUnauthorized {
		h.Set("Www-Authenticate", "Bearer")
	}
	w.WriteHeader(f.status)
	_, _ = w.Write(append(f.body(), '\n')) // whoever is gone is not told
}

// interrupted is what a stream that has begun ends with: what went wrong, and that the text is not complete.
func interrupted(err *wire.Error) *failure {
	f := failureOf(err)
	return &failure{kind: serverError, code: "stream_interrupted", message: string(err.Code) + ": " + f.message}
}
