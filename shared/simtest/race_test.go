//go:build race

package simtest_test

// raceEnabled says that the race detector runs goroutines in a random order, so that nothing can be repeated.
const raceEnabled = true
