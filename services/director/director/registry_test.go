package director

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestDescribed registers what no worker of ours would say of itself.
func TestDescribed(t *testing.T) {
	from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4000}
	good := func() *wirepb.Register {
		return &wirepb.Register{
			Version: wire.Version, Worker: "worker-a", Instance: "0123456789abcdef", UserAddr: ":62001", MgmtAddr: "elsewhere:63001",
			Engine: "markov", EngineFingerprint: "markov (1)", Capacity: 3,
		}
	}
	w, err := described(good(), from)
	if err != nil || w.Label != "worker-a" || w.UserAddr != "10.0.0.7:62001" || w.MgmtAddr != "elsewhere:63001" || w.Capacity != 3 {
		t.Errorf("got %+v, %v", w, err)
	}
	for name, c := range map[string]struct {
		change func(*wirepb.Register)
		code   wire.Code
		words  string
	}{
		"version":            {func(r *wirepb.Register) { r.Version = 7 }, wire.CodeVersion, "worker speaks version 7, this director 1"},
		"no label":           {func(r *wirepb.Register) { r.Worker = "" }, wire.CodeInvalid, `WORKER_LABEL="": not a name`},
		"label of two lines": {func(r *wirepb.Register) { r.Worker = "a\nb" }, wire.CodeInvalid, `WORKER_LABEL="a\nb": not a name`},
		"label too long":     {func(r *wirepb.Register) { r.Worker = strings.Repeat("a", 254) }, wire.CodeInvalid, "give 1 to 253"},
		"huge label":         {func(r *wirepb.Register) { r.Worker = strings.Repeat("a", 60_000) }, wire.CodeInvalid, "give 1 to 253"},
		"no instance":        {func(r *wirepb.Register) { r.Instance = "" }, wire.CodeInvalid, "instance"},
		"strange instance":   {func(r *wirepb.Register) { r.Instance = "\x1b[2J" }, wire.CodeInvalid, "instance"},
		"no capacity":        {func(r *wirepb.Register) { r.Capacity = 0 }, wire.CodeInvalid, "WORKER_CAPACITY=0"},
		"no user address":    {func(r *wirepb.Register) { r.UserAddr = "" }, wire.CodeInvalid, "WORKER_ADVERTISE_USER_ADDR"},
		"strange address":    {func(r *wirepb.Register) { r.MgmtAddr = "a\r\nb:1" }, wire.CodeInvalid, "printed"},
		"strange engine":     {func(r *wirepb.Register) { r.Engine = "\x07" }, wire.CodeInvalid, "printed"},
		"long fingerprint":   {func(r *wirepb.Register) { r.EngineFingerprint = strings.Repeat("f", 300) }, wire.CodeInvalid, "260 bytes"},
	} {
		r := good()
		c.change(r)
		_, err := described(r, from)
		if e := new(wire.Error); !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.words) || len(e.Message) > 500 {
			t.Errorf("%s: got %v, want %s: … %s", name, err, c.code, c.words)
		}
	}
}
