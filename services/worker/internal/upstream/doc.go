// Package upstream has engines whose text an inference server makes: see package api for how one server is spoken with, and package
// probe for what is known of its models.
//
// An inference server knows nothing of streams that began elsewhere. So an [Engine] that is to go on with one has several ways,
// rungs of a ladder, from the one that promises most:
//
//  1. by ids: the server is given the prompt and the answer so far as ids of tokens, but for the last few of these. It makes these again,
//     and they are compared before anything new goes out
//  2. greedy check: the server says in one go whether each token of the answer is the likeliest one, and then goes on by ids
//  3. replay: the whole request again, of which nothing goes out as long as it is equal to what the stream has, byte for byte
//  4. text: the server goes on behind the text so far, where the caller of the stream allows it
//
// Which of them there are depends on the request's shape, on what was measured of the model, and on who made the stream so far. Each
// is tried at two workers (Request.Tries), the next one at once where the server refuses it.
package upstream
