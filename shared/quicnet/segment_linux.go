package quicnet

import (
	"encoding/binary"
	"syscall"
)

const udpSegment = 103 // UDP_SEGMENT of linux/udp.h

// segmentSize returns the size of the packets that the kernel shall make of one write, or 0 for one packet.
func segmentSize(oob []byte) int {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == syscall.IPPROTO_UDP && m.Header.Type == udpSegment && len(m.Data) >= 2 {
			return int(binary.NativeEndian.Uint16(m.Data))
		}
	}
	return 0
}
