package peer_test

import (
	"net"
	"testing"

	"github.com/connswap/connswap/shared/peer"
)

// TestNetwork: what one host can choose among counts as one address.
func TestNetwork(t *testing.T) {
	of := func(ip string) string {
		return peer.Of(&net.UDPAddr{IP: net.ParseIP(ip), Port: 4000, Zone: ""}).String()
	}
	for ip, want := range map[string]string{
		"192.0.2.7":          "192.0.2.7/32",
		"::ffff:192.0.2.7":   "192.0.2.7/32",
		"2001:db8:1:2::7":    "2001:db8:1:2::/64",
		"2001:db8:1:2:ff::1": "2001:db8:1:2::/64",
		"2001:db8:1:3::7":    "2001:db8:1:3::/64",
	} {
		if got := of(ip); got != want {
			t.Errorf("%s is of %s, want %s", ip, got, want)
		}
	}
	if peer.Of(&net.UnixAddr{}).IsValid() {
		t.Error("a Unix socket has an IP address")
	}
}
