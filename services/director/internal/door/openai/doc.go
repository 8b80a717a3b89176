// Package openai is the door for programs that speak OpenAI's API over HTTP, on the director's USER port: chat completions,
// completions and responses, streamed or whole. Behind it each request is a stream like any other, on a connection of its own.
//
// An exchange is one such request. It parses the few fields that the director acts on (parse.go), has a session begin, and reads
// the stream's log through a leg (leg.go). What lies there is decoded into deltas (decode.go), and an encoder of the request's API
// writes them as events, or as one document (chat.go, completions.go, responses.go). All that a client sees besides the text (ids,
// times, numbers of events) is made here, and follows from the log alone: so whoever takes up a stream gets the same bytes again.
package openai
