package wire

import "strconv"

// Version is that of the protocol between client and director.
const Version = 1

// Versions of the protocol between director and worker: the link, and the registration. A worker tells at its
// registration which ones it speaks; a link speaks the highest that both do.
//
//	1  placement and failover
//	2  planned swaps: standbys, migration tokens, transfer of state, drains
const (
	OldestPeerVersion = 1
	NewestPeerVersion = 2
)

// Set by the linker (-X) of a build.
var (
	// Build names the program, for people.
	Build = "dev"
	// newest is a lower version than NewestPeerVersion in builds that play the previous release.
	newest = ""
)

// PeerVersion returns the highest version that this build speaks.
func PeerVersion() uint32 {
	if v, err := strconv.ParseUint(newest, 10, 32); err == nil && v >= OldestPeerVersion && v < NewestPeerVersion {
		return uint32(v)
	}
	return NewestPeerVersion
}

// Common returns the highest version that both ends speak, where the other one speaks oldest to newest and this
// one up to own; or 0 if there is none.
func Common(own, oldest, newest uint32) uint32 {
	if oldest == 0 {
		oldest = newest
	}
	common := min(own, newest)
	if common < oldest || common < OldestPeerVersion {
		return 0
	}
	return common
}
