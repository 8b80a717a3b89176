package director

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// FuzzDescribed has workers register that say anything of themselves: what passes can be dialled, and shown.
func FuzzDescribed(f *testing.F) {
	for _, r := range []*wirepb.Register{
		{Version: 3, OldestVersion: 3, Worker: "worker-a", Instance: "1", UserAddr: "10.0.0.1:62000", MgmtAddr: ":63000", Capacity: 8, Build: "dev", Models: []*wirepb.Model{{Name: "markov", Fingerprint: "x"}}},
		{Version: 3, Worker: "worker-a", Instance: "1", UserAddr: "[::1]:62000", MgmtAddr: "name:63000", Capacity: 1 << 31},
		{Version: 9, Worker: "\x1b[2J", Instance: "", UserAddr: "0.0.0.0:0", MgmtAddr: "x"},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	from := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:5"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &wirepb.Register{}
		if proto.Unmarshal(b, r) != nil {
			return
		}
		peer, err := described(r, from, wire.PeerVersions(0))
		if err != nil {
			if e := wire.AsError(err, wire.CodeInternal); e.Code == wire.CodeInternal || e.Message == "" {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if config.CheckName(peer.Label) != nil || config.CheckName(peer.Instance) != nil || peer.Capacity < 1 || peer.Version == 0 {
			t.Errorf("passes: %+v", peer)
		}
		for _, addr := range []string{peer.UserAddr, peer.MgmtAddr} {
			host, port, err := net.SplitHostPort(addr)
			if err != nil || config.CheckPort(port) != nil || port == "0" || config.CheckReachable(host) != nil {
				t.Errorf("cannot be dialled: %q", addr)
			}
		}
		for _, text := range append(peer.Names(), peer.UserAddr, peer.MgmtAddr, peer.Describe(), peer.Build, peer.DrainedBy) {
			if len(text) > longestText*maxModels || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("cannot be shown: %q", text)
			}
		}
	})
}
