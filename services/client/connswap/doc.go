// Package connswap is the client: it opens one QUIC connection to a director and asks it to generate text.
// Which worker makes the tokens is the director's business. When one dies, another goes on with the next token,
// on the same stream of the same connection.
//
// The package trusts nobody's word for that. Each stream checks what arrives: sequences are 1, 2, 3 … without a
// gap or a repeat, epochs only rise, and the digest of all tokens is the one that the director announces at the
// end. What does not hold is an error, and ends the stream. [Conn.Proof] tells whether the connection is still
// the very same one.
package connswap
