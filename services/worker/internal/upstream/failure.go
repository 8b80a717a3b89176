package upstream

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/internal/upstream/api"
)

// failure returns what a server's error means for a stream. first says that nothing has come of the answer, and begins that the stream
// has nothing either.
func failure(err error, first, begins bool) error {
	var fault *api.Error
	if !errors.As(err, &fault) {
		return err
	}
	switch fault.Fault {
	case api.Rejected:
		if begins {
			return engine.Rejected(fault.Message, fault.Status, fault.Document)
		}
	case api.Busy, api.Gone, api.Denied:
		if first {
			return fmt.Errorf("%w: %w", engine.ErrBusy, err)
		}
	case api.Failed, api.Broken, api.Silent:
	}
	return err
}

// refused reports whether an error says that a server does not do what it was asked for; the stream is not at fault.
func refused(err error) bool {
	var fault *api.Error
	return errors.Is(err, errors.ErrUnsupported) || errors.As(err, &fault) && fault.Fault == api.Rejected
}

// unavailable is the error for a request that asks for a continuity that its shape, and the model, do not allow.
func unavailable(asked, best engine.Continuity, why string) error {
	message := fmt.Sprintf("continuity %s was asked for, and %s is the best that there is for this request", classNames[asked], classNames[best])
	if why != "" {
		message += " (" + why + ")"
	}
	document, _ := json.Marshal(map[string]any{"error": map[string]any{ // nothing in it can fail
		"message": message, "type": "invalid_request_error", "param": nil, "code": "continuity_unavailable",
	}})
	return engine.Rejected(message, 409, document)
}

var classNames = [...]string{engine.None: "none", engine.Text: "text", engine.Verified: "verified", engine.Exact: "exact"}
