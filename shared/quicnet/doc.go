// Package quicnet opens the sockets and QUIC connections of all roles: the network behind an interface, the
// quic.Config of each protocol in one place, the tether beside a link, the ping that asks whether a
// listener can be reached, and the proof that a connection is still the very same one.
package quicnet
