package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// listenAddr checks an address to bind: [host]:port, port 0 for any free one.
func (p *Problems) listenAddr(name, addr string) {
	host, err := splitAddr(addr, 0)
	if err == nil {
		err = onePlace(host)
	}
	if err != nil {
		p.add(name, addr, "%v; give [host]:port such as :61000", err)
	}
}

// targetAddr checks an address to dial: host:port.
func (p *Problems) targetAddr(name, addr string) {
	p.hostPort(name, addr, onePlace, "such as localhost:61000")
}

// advertisedAddr checks an address that is told to others, for them to dial; it may be empty.
func (p *Problems) advertisedAddr(name, addr string) {
	if addr != "" {
		p.hostPort(name, addr, CheckReachable, "as others reach this worker, such as worker-a.example:62001, or leave it empty")
	}
}

func (p *Problems) hostPort(name, addr string, check func(host string) error, example string) {
	host, err := splitAddr(addr, 1)
	if err == nil && host == "" {
		err = errors.New("no host")
	}
	if err != nil {
		p.add(name, addr, "%v; give host:port such as localhost:61000", err)
		return
	}
	if err := check(host); err != nil {
		p.add(name, addr, "%v; give host:port %s", err, example)
	}
}

// CheckReachable says why nobody can reach a host under that name, whatever the network: it is an address that means
// "here", or many places, or it is none.
func CheckReachable(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsUnspecified() {
		return fmt.Errorf("%s stands for all addresses of one's own machine, others cannot dial it", host)
	}
	return onePlace(host)
}

// onePlace says what is wrong with an address that is not one host's. What is no address is a name.
func onePlace(host string) error {
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil && numeric(host[strings.LastIndexByte(host, '.')+1:]): // what resolvers make of 0, 127.1 or 010.0.0.1 differs
		return fmt.Errorf("%.80q looks like an address and is none", host)
	case err != nil:
		return nil
	case ip.Unmap().IsMulticast():
		return fmt.Errorf("%s is a multicast address", host)
	case ip.Unmap() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is the broadcast address", host)
	}
	return nil
}

// numeric reports whether the last label of a host makes it an IPv4 address to resolvers, decimal, octal or hexadecimal.
func numeric(label string) bool {
	hex, ok := strings.CutPrefix(strings.ToLower(label), "0x")
	return isDigits(label) || ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// CheckPort says what is wrong with the port of an address to dial.
func CheckPort(port string) error { return checkPort(port, 1) }

func checkPort(port string, lowest int) error {
	number, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || int(number) < lowest:
		return fmt.Errorf("the port is not a number from %d to 65535", lowest)
	case len(port) > 1 && port[0] == '0':
		return fmt.Errorf("the port begins with 0; write %d", number)
	}
	return nil
}

func splitAddr(addr string, lowest int) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", errors.New("not an address")
	}
	if err := checkPort(port, lowest); err != nil {
		return "", err
	}
	if strings.ContainsAny(host, " \t\r\n/") {
		return "", errors.New("the host has a character that no host name has")
	}
	return host, nil
}

// IsLoopback reports whether a listener on an address, "host:port", is for this machine only.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
