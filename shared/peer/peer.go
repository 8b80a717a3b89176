// Package peer says which addresses count as one and the same peer, wherever peers are counted.
package peer

import (
	"net"
	"net/netip"
)

// Network is what counts as one address: one of IPv4, or the /64 of IPv6, in which a host can choose its own. It is the
// zero Prefix of what is no address: all such count as one.
func Network(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	network, _ := ip.Prefix(bits) // fails for what is no address
	return network
}

// Of returns the Network of a UDP or TCP address.
func Of(addr net.Addr) netip.Prefix {
	switch a := addr.(type) {
	case *net.UDPAddr:
		return Network(a.AddrPort().Addr())
	case *net.TCPAddr:
		return Network(a.AddrPort().Addr())
	}
	return netip.Prefix{}
}

// Name shows a Network to people: an address, or a /64.
func Name(network netip.Prefix) string {
	switch {
	case !network.IsValid():
		return "unknown"
	case network.IsSingleIP():
		return network.Addr().String()
	}
	return network.String()
}
