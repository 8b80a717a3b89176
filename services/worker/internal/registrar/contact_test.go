package registrar

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A director that is away for long is one complaint, whichever port the attempts came from.
func TestOneComplaintPerReason(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	c := &contact{log: zap.New(core)}
	for port := range 5 {
		refused := &net.OpError{
			Op: "write", Net: "udp", Source: &net.UDPAddr{Port: port},
			Err: os.NewSyscallError("sendmsg", syscall.ECONNREFUSED),
		}
		c.complain(fmt.Errorf("dialling: %w", refused))
		c.complain(errors.New("no answer"))
	}
	if logs.Len() != 2 {
		t.Errorf("complaints: %v", logs.All())
	}
}
