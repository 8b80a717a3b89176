package main

import "github.com/connswap/connswap/e2e/internal/cluster"

// outside is a director and two workers, each a process of its own.
type outside struct{ *cluster.Cluster }

func start(bin string, env ...string) (*outside, error) {
	c, err := cluster.Start(bin, 2, env...)
	return &outside{c}, err
}
