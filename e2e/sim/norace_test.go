//go:build !race

package sim

const every = 1
