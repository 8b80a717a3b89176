package mgmt

import (
	"encoding/json"
	"net/http"

	"github.com/connswap/connswap/shared/wire"
)

// Problem is the JSON document of whatever was refused.
type Problem struct {
	Error ProblemError `json:"error"`
}

// ProblemError has the words of a *wire.Error.
type ProblemError struct {
	Code    wire.Code `json:"code"`
	Message string    `json:"message"`
}

// Refuse answers with an error: the *wire.Error in its chain, or its text as CodeInternal.
func Refuse(w http.ResponseWriter, err error) {
	refusal := wire.AsError(err, wire.CodeInternal)
	if refusal.Code == wire.CodeLimit {
		w.Header().Set("Retry-After", "1")
	}
	refuse(w, statusOf(refusal.Code), refusal)
}

// RefuseWith is Refuse with another status than the code stands for.
func RefuseWith(w http.ResponseWriter, status int, err error) {
	refuse(w, status, wire.AsError(err, wire.CodeInternal))
}

func refuse(w http.ResponseWriter, status int, refusal *wire.Error) {
	WriteJSON(w, status, Problem{ProblemError{refusal.Code, refusal.Message}})
}

// WriteJSON answers with a small document.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) //nolint:errcheck // the asker is gone; there is nobody to tell
}

// statusOf is the HTTP status of a code.
func statusOf(code wire.Code) int {
	switch code {
	case wire.CodeInvalid, wire.CodeProtocol:
		return http.StatusBadRequest
	case wire.CodeUnauthorized:
		return http.StatusForbidden
	case wire.CodeNotFound:
		return http.StatusNotFound
	case wire.CodeConflict, wire.CodeNoWorker, wire.CodeCancelled:
		return http.StatusConflict
	case wire.CodeLimit, wire.CodeUnavailable, wire.CodeShutdown:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
