//go:build race

package sim

// every is of how many cuts of the matrix one is played: the race detector takes ten times as long. `make sim` plays all.
const every = 4
