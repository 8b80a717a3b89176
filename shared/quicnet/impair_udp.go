package quicnet

import (
	"net"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// udpSocket is what quic-go uses of a UDP socket of the operating system: with it comes the address that a packet was sent
// to, which is where the answer has to come from, ECN, many packets in one system call, and the DF bit.
type udpSocket interface {
	quic.OOBCapablePacketConn
	net.Conn // ipv4.PacketConn needs it
	SetWriteBuffer(bytes int) error
}

// impairedUDP is a udpSocket some of whose packets get lost.
type impairedUDP struct {
	udpSocket

	net   *Impaired
	batch *ipv4.PacketConn // reads from the socket
}

func newImpairedUDP(socket udpSocket, n *Impaired) *impairedUDP {
	return &impairedUDP{udpSocket: socket, net: n, batch: ipv4.NewPacketConn(socket)}
}

// ReadBatch is how quic-go reads; without it, it would read from the socket below.
func (c *impairedUDP) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	for {
		n, err := c.batch.ReadBatch(messages, flags)
		if err != nil {
			return n, err
		}
		kept := 0
		for i := range messages[:n] {
			if c.net.lost() {
				continue
			}
			if kept != i {
				copyMessage(&messages[kept], &messages[i])
			}
			kept++
		}
		if kept > 0 {
			return kept, nil
		}
	}
}

// copyMessage copies what was read. The buffers stay where they are: quic-go knows each by its message's place.
func copyMessage(to, from *ipv4.Message) {
	copy(to.Buffers[0], from.Buffers[0][:from.N])
	copy(to.OOB, from.OOB[:from.NN])
	to.N, to.NN, to.Flags, to.Addr = from.N, from.NN, from.Flags, from.Addr
}

func (c *impairedUDP) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	for {
		n, oobn, flags, addr, err = c.udpSocket.ReadMsgUDP(b, oob)
		if err != nil || !c.net.lost() {
			return n, oobn, flags, addr, err
		}
	}
}

func (c *impairedUDP) ReadFrom(p []byte) (int, net.Addr, error) {
	n, _, _, addr, err := c.ReadMsgUDP(p, nil)
	return n, addr, err
}

// WriteMsgUDP sends what is not lost of b, which is one packet, or several of the size that oob says (GSO).
func (c *impairedUDP) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	kept := c.survivors(b, segmentSize(oob))
	if len(kept) > 0 {
		_, _, err = c.udpSocket.WriteMsgUDP(kept, oob, addr)
	}
	if err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}

func (c *impairedUDP) WriteTo(p []byte, addr net.Addr) (int, error) {
	if c.net.lost() {
		return len(p), nil
	}
	return c.udpSocket.WriteTo(p, addr)
}

// survivors returns the packets of b that are not lost; size 0 means that b is one packet.
func (c *impairedUDP) survivors(b []byte, size int) []byte {
	if size <= 0 || size >= len(b) {
		if c.net.lost() {
			return nil
		}
		return b
	}
	kept := make([]byte, 0, len(b))
	for len(b) > 0 {
		packet := b[:min(size, len(b))]
		b = b[len(packet):]
		if !c.net.lost() {
			kept = append(kept, packet...)
		}
	}
	return kept
}
