package wire

import (
	"fmt"
	"runtime"
	"strconv"
)

// Version is that of the protocol between client and director.
const Version = 2

// Versions of the protocol between director and worker, the link and the registration, that this program knows. There is
// one so far; 1 and 2 were never released. A worker tells at its registration which ones it speaks; a link speaks the highest
// that both do.
const (
	OldestPeerVersion = 3
	NewestPeerVersion = 3
)

// Set by the linker (-X) of a build.
var (
	// Build names the program, for people.
	Build = "dev"
	// newest, where it is set, is the only version that the build claims to speak: for tests of how that is refused.
	newest = ""
)

// Versions are those that a peer speaks: all from the oldest to the newest.
type Versions struct{ Oldest, Newest uint32 }

// PeerVersions returns the versions that this build speaks; or the one that is claimed, unless that is 0.
func PeerVersions(claimed uint32) Versions {
	if v, err := strconv.ParseUint(newest, 10, 32); err == nil && claimed == 0 {
		claimed = uint32(v)
	}
	if claimed != 0 {
		return Versions{claimed, claimed}
	}
	return Versions{OldestPeerVersion, NewestPeerVersion}
}

// Common returns the highest version that both ends speak, or 0 if there is none.
func (v Versions) Common(other Versions) uint32 {
	common := min(v.Newest, other.Newest)
	if common < max(v.Oldest, other.Oldest) {
		return 0
	}
	return common
}

func (v Versions) String() string {
	if v.Oldest == v.Newest {
		return fmt.Sprint(v.Newest)
	}
	return fmt.Sprintf("%d to %d", v.Oldest, v.Newest)
}

// Describe says what a program is: its build, the protocol, and the Go that it was built with.
func Describe(program string) string {
	return fmt.Sprintf("connswap %s %s (protocol: clients %d, workers %v; %s)", program, Build, Version, PeerVersions(0), runtime.Version())
}
