// Package simtest is a simulated network with faults: hosts that lose packets, are cut off, die, hang and
// come back. A [Host] is a quicnet.Network, so a whole cluster, real quic-go included, runs in one process,
// in a testing/synctest bubble with fake time.
//
//	synctest.Test(t, func(t *testing.T) {
//		n := simtest.New(seed, simtest.Options{Path: simtest.Path{Delay: time.Millisecond, Loss: 0.02}})
//		defer n.Close()
//		worker, director := n.Host("worker-a"), n.Host("director")
//		… quicnet.Listen(worker, ":62001", …), quicnet.Dial(ctx, director, "worker-a:62001", …) …
//		worker.Kill()
//	})
//
// # What is simulated
//
// Packets (UDP) are delayed, lost, reordered and duplicated as the [Path] between two hosts says, each
// direction for itself. Streams (TCP) are delayed too, but keep everything in order: what a path loses
// arrives later by the time of a retransmission, what a cut path holds back arrives when it heals.
//
//	Cut, Isolate   nothing passes, and nobody is told
//	Kill           the process is gone, the machine is not: streams end, closed ports refuse
//	Crash          the machine is gone: nobody is told
//	Freeze         the process is stopped: the machine still takes what comes for it
//	Rebind         a NAT forgets the host's sockets: they send from other ports, and what comes for the old ones is lost
//
// [Host.Freeze] cannot stop the goroutines of a host, it only stops their traffic: what they send has to wait,
// what they should receive waits. Timers of a frozen host still fire, and its code sees time pass. The same
// goes for Kill and Crash: the host's sockets are closed, ending its goroutines is the test's part, before
// Restart.
//
// # Running it again
//
// Every random choice comes from the seed: each flow (protocol and both addresses) has a random source of its
// own, so the order in which different sockets happen to send at one instant changes nothing. No two
// deliveries share an instant: what a packet sets in motion has come to rest before the next one arrives. With
// [Repeatable], a run can be repeated exactly, and [Net.Fingerprint] tells whether it was.
//
// What the Go runtime decides at random stays random: which of two timers set for the very same nanosecond
// fires first, and which of several ready cases a select takes. So a simulation that is to be repeated
// avoids round numbers: nodes that start at different instants, and periods that are no multiples of each
// other or of QUIC's (a keep-alive of 100 ms meets a ticker of 10 ms). The race detector shuffles
// goroutines on purpose, under it nothing repeats. And where the machine is overloaded, the scheduler
// interrupts goroutines that seem to run for 10 ms: then a run in a hundred differs.
package simtest
