// Package container tests the images. Each test has a network of its own, with a director, two workers and clients in
// it, breaks it the way machines do, or runs it the way operators do, and then compares what the clients got with what
// the director shows: connection, tokens, text and swaps. Where a test needs many streams it reads them itself.
//
//	make images && go test ./e2e/container
//
// It needs a Docker daemon and the images, and nothing else: no root, no packet filter, no registry. Whatever it starts
// carries the label connswap.e2e, and is removed when the tests end, or at the next run where they did not get that far.
package container
