package config

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kubernetes gives every container variables for the Services of its namespace, and Docker for linked containers; those of
// a Service called connection-swap-director begin with Prefix. They are known by the shape of name and value, so that a
// misspelt variable is not taken for one of them.
var foreign = []struct {
	name  *regexp.Regexp
	value func(string) bool
}{
	{shape(`SERVICE_HOST`), isHost},
	{shape(`SERVICE_PORT(_[A-Z0-9_]+)?`), isPort},
	{shape(`PORT(_[0-9]+_(TCP|UDP|SCTP))?`), isEndpoint},
	{shape(`PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO`), isProtocol},
	{shape(`PORT_[0-9]+_(TCP|UDP|SCTP)_PORT(_(START|END))?`), isPort},
	{shape(`PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR`), isHost},
	{shape(`NAME`), func(value string) bool { return strings.HasPrefix(value, "/") }}, // Docker: /client/director
	{shape(`ENV_.+`), func(string) bool { return true }},                              // Docker: any variable of the other one
}

// shape matches a name that begins with Prefix and ends in what Kubernetes or Docker add to that of a service.
func shape(end string) *regexp.Regexp {
	return regexp.MustCompile(`^` + Prefix + `(_[A-Z0-9_]+)?_` + end + `$`)
}

// isForeign reports whether another program has set the variable, and means nothing by it here.
func isForeign(name, value string) bool {
	for _, f := range foreign {
		if f.name.MatchString(name) && f.value(value) {
			return true
		}
	}
	return false
}

// Foreign returns the names of the variables that begin as those of this package do, were set by Kubernetes or Docker, and
// are ignored.
func Foreign() []string {
	known := allNames()
	var names []string
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if !slices.Contains(known, name) && isForeign(name, value) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// isEndpoint recognizes udp://10.0.0.7:61000.
func isEndpoint(value string) bool {
	protocol, rest, ok := strings.Cut(value, "://")
	end := strings.LastIndexByte(rest, ':')
	return ok && end > 0 && isProtocol(protocol) && isHost(strings.Trim(rest[:end], "[]")) && isPort(rest[end+1:])
}

func isProtocol(value string) bool { return value == "tcp" || value == "udp" || value == "sctp" }

func isHost(value string) bool {
	_, err := netip.ParseAddr(value)
	return err == nil
}

func isPort(value string) bool {
	_, err := strconv.ParseUint(value, 10, 16)
	return err == nil
}
