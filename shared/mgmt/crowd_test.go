package mgmt

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCrowd: one address cannot have all, nobody more than there is, and who leaves makes room.
func TestCrowd(t *testing.T) {
	at := func(last byte) net.Addr { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, last), Port: 1} }
	var c crowd
	var leaves []func()
	enter := func(last byte) bool {
		leave, ok := c.enter(at(last))
		if ok {
			leaves = append(leaves, leave)
		}
		return ok
	}
	for host := range byte(4) {
		for range maxConnsOfOne {
			require.True(t, enter(host))
		}
		require.False(t, enter(host))
	}
	require.False(t, enter(9), "there is no room for anybody")
	leaves[0]()
	require.True(t, enter(9))
	for _, leave := range leaves[1:] {
		leave()
	}
	require.Zero(t, c.all)
	require.Empty(t, c.of)
}
