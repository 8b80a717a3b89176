// Package stream is the director's record of one stream: the log of its accepted tokens and of what happened between them, the fence that says which
// epoch may append to it, and the credit of whoever may.
//
// Three parties use a Log at the same time, and only its own short lock is between them:
//
//	a link's reader appends tokens, on the hot path
//	the leg to the client reads at its own cursor, and says how far the client's connection has taken them
//	the owner of the stream fences, opens the log for the next epoch, and adds marks
//
// The log knows no QUIC and no worker, and starts no goroutine. What the owner has to know it is told through a function.
package stream
