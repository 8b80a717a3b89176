// Package sim runs whole clusters, real quic-go included, on a simulated network with fake time, and breaks
// them. Everything is chosen by a seed; what a seed found, it finds again:
//
//	go test ./e2e/sim -run TestSimulation -args -seeds=2000
//	go test ./e2e/sim -run TestSimulation -v -args -seed=17
package sim
