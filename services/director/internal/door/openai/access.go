package openai

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/shared/peer"
	"github.com/connswap/connswap/shared/wire"
)

// keyInContext is where a request's key is in its context.
type keyInContext struct{}

// withKey lets in who shows a key, and tells in each answer how its limits stand.
func (s *Server) withKey(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		shown := bearer(r)
		key, known := s.cfg.Keys.Authenticate(shown)
		if !known {
			return unknownKey(shown)
		}
		showLimits(w.Header(), key)
		return next(w, r.WithContext(context.WithValue(r.Context(), keyInContext{}, key)))
	}
}

// keyOf returns the key that a request came with; nil where clients need none.
func keyOf(r *http.Request) *keys.Key {
	key, _ := r.Context().Value(keyInContext{}).(*keys.Key)
	return key
}

// callerOf names who has made a request; empty where clients need no key.
func callerOf(r *http.Request) string { return keyOf(r).Name() }

// bearer returns the token of a request (RFC 6750 §2.1); empty for none.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// unknownKey refuses who shows no key that is known.
func unknownKey(shown string) error {
	message := "this API key is not known here"
	if shown == "" {
		message = "there is no API key; give one in the header Authorization: Bearer KEY, as clients do with OPENAI_API_KEY"
	}
	return wire.Errorf(wire.CodeUnauthorized, "%s", message)
}

// showLimits says how the limits of a key stand, in the headers that OpenAI's clients know.
func showLimits(h http.Header, key *keys.Key) {
	for _, limit := range key.Limits() {
		h.Set("X-Ratelimit-Limit-"+limit.Of, strconv.Itoa(limit.Most))
		h.Set("X-Ratelimit-Remaining-"+limit.Of, strconv.Itoa(limit.Left))
		h.Set("X-Ratelimit-Reset-"+limit.Of, limit.Reset.String())
	}
}

// holderOf says who a client is where things are divided.
func holderOf(addr net.Addr) string { return peer.Name(peer.Of(addr)) }

// clientOf is holderOf for a request.
func clientOf(r *http.Request) string {
	addr, err := net.ResolveTCPAddr("tcp", r.RemoteAddr) // a literal: nothing is looked up
	if err != nil {
		return holderOf(nil)
	}
	return holderOf(addr)
}

// nameOf says whose a request is where things are divided: its key's, else its client's.
func nameOf(r *http.Request) string { return keyOf(r).Holder(clientOf(r)) }
