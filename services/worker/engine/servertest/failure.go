package servertest

import "net/http"

// failure is why a request is not served.
type failure struct {
	status  int
	code    string // of the OpenAI API, where there is one
	kind    string // type, where the kinds of servers have the same
	param   string
	message string
	prompt  int // tokens, of a prompt that is too long
	limit   int // that the prompt goes beyond
}

func badRequest(message string) *failure {
	return &failure{status: http.StatusBadRequest, kind: "invalid_request_error", message: message}
}

func unknownModel(name string) *failure {
	return &failure{
		status: http.StatusNotFound, code: "model_not_found", kind: "invalid_request_error", param: "model",
		message: "The model `" + name + "` does not exist.",
	}
}

func tooLong(prompt, limit int) *failure {
	return &failure{
		status: http.StatusBadRequest, code: "context_length_exceeded", kind: "invalid_request_error", param: "messages",
		prompt: prompt, limit: limit,
	}
}

func filtered() *failure {
	return &failure{
		status: http.StatusBadRequest, code: "content_filter", kind: "invalid_request_error", param: "prompt",
		message: "The response was filtered due to the prompt triggering the content management policy.",
	}
}

func unauthorized() *failure {
	return &failure{
		status: http.StatusUnauthorized, code: "invalid_api_key", kind: "invalid_request_error",
		message: "Incorrect API key provided.",
	}
}

func tooMany() *failure {
	return &failure{
		status: http.StatusTooManyRequests, code: "rate_limit_exceeded", kind: "rate_limit_error",
		message: "Too many requests; the engine is overloaded.",
	}
}

func internal() *failure {
	return &failure{status: http.StatusInternalServerError, kind: "server_error", message: "EngineCore encountered an issue."}
}

func unavailable(message string) *failure {
	return &failure{status: http.StatusServiceUnavailable, kind: "unavailable_error", message: message}
}
