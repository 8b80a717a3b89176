package director

import (
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/connswap/connswap/services/director/internal/routing"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// TestDescribed registers what no worker of ours would say of itself.
func TestDescribed(t *testing.T) {
	from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4000}
	good := func() *wirepb.Register {
		return &wirepb.Register{
			Version: 3, OldestVersion: 2, Build: "v2", Worker: "worker-a", Instance: "0123456789abcdef", UserAddr: ":62001", MgmtAddr: "elsewhere:63001",
			Models: []*wirepb.Model{{Name: "markov", Fingerprint: "markov (1)"}, {Name: "other", Fingerprint: "x", Capacity: 2, Stateful: true, Continuity: 9}}, Capacity: 3,
		}
	}
	w, err := described(good(), from, wire.PeerVersions(0))
	if err != nil || len(w.Models) != 2 || !reflect.DeepEqual(w.Models[1], routing.Model{Name: "other", Fingerprint: "x", Capacity: 2, Stateful: true, Continuity: 3}) || w.Build != "v2" || w.Version != 3 || w.Label != "worker-a" || w.UserAddr != "10.0.0.7:62001" || w.MgmtAddr != "elsewhere:63001" || w.Capacity != 3 {
		t.Errorf("got %+v, %v", w, err)
	}
	beside := good()
	beside.Server = "vllm 0.32.1 at http://" + strings.Repeat("x", 300) + "\x1b[2J"
	beside.Models[0].Class = "replayable"
	if w, err := described(beside, from, wire.PeerVersions(0)); err != nil || !strings.HasSuffix(w.Server, "xx [2J") || w.Models[0].Class != "replayable" {
		t.Errorf("beside a server with a long address: %+v, %v", w, err)
	}
	for name, c := range map[string]struct {
		change func(*wirepb.Register)
		code   wire.Code
		words  string
	}{
		"strange build":       {func(r *wirepb.Register) { r.Build = "v\n2" }, wire.CodeInvalid, "printed"},
		"no label":            {func(r *wirepb.Register) { r.Worker = "" }, wire.CodeInvalid, `WORKER_LABEL="": not a name`},
		"label of two lines":  {func(r *wirepb.Register) { r.Worker = "a\nb" }, wire.CodeInvalid, `WORKER_LABEL="a\nb": not a name`},
		"label too long":      {func(r *wirepb.Register) { r.Worker = strings.Repeat("a", 254) }, wire.CodeInvalid, "give 1 to 253"},
		"huge label":          {func(r *wirepb.Register) { r.Worker = strings.Repeat("a", 60_000) }, wire.CodeInvalid, "give 1 to 253"},
		"no instance":         {func(r *wirepb.Register) { r.Instance = "" }, wire.CodeInvalid, "instance"},
		"strange instance":    {func(r *wirepb.Register) { r.Instance = "\x1b[2J" }, wire.CodeInvalid, "instance"},
		"no capacity":         {func(r *wirepb.Register) { r.Capacity = 0 }, wire.CodeInvalid, "WORKER_CAPACITY=0"},
		"endless capacity":    {func(r *wirepb.Register) { r.Capacity = 1<<32 - 1 }, wire.CodeInvalid, "WORKER_CAPACITY=4294967295"},
		"port of a name":      {func(r *wirepb.Register) { r.UserAddr = ":http" }, wire.CodeInvalid, "not a number from 1 to 65535"},
		"port out of range":   {func(r *wirepb.Register) { r.MgmtAddr = ":99999" }, wire.CodeInvalid, "not a number from 1 to 65535"},
		"port with a zero":    {func(r *wirepb.Register) { r.UserAddr = ":062001" }, wire.CodeInvalid, "write 62001"},
		"octal address":       {func(r *wirepb.Register) { r.UserAddr = "010.0.0.1:62001" }, wire.CodeInvalid, "is none"},
		"build that deceives": {func(r *wirepb.Register) { r.Build = "v2\u202e1v" }, wire.CodeInvalid, "printed"},
		"no user address":     {func(r *wirepb.Register) { r.UserAddr = "" }, wire.CodeInvalid, "WORKER_ADVERTISE_USER_ADDR"},
		"address of nobody":   {func(r *wirepb.Register) { r.UserAddr = "0.0.0.0:62001" }, wire.CodeInvalid, "WORKER_ADVERTISE_USER_ADDR: 0.0.0.0 stands for"},
		"address of many":     {func(r *wirepb.Register) { r.MgmtAddr = "[ff02::1]:63001" }, wire.CodeInvalid, "WORKER_ADVERTISE_MGMT_ADDR: ff02::1 is a multicast"},
		"no port":             {func(r *wirepb.Register) { r.UserAddr = ":0" }, wire.CodeInvalid, "port 0"},
		"strange address":     {func(r *wirepb.Register) { r.MgmtAddr = "a\r\nb:1" }, wire.CodeInvalid, "printed"},
		"strange model":       {func(r *wirepb.Register) { r.Models[0].Name = "\x07" }, wire.CodeInvalid, "printed"},
		"model without name":  {func(r *wirepb.Register) { r.Models[1].Name = "" }, wire.CodeInvalid, "1 to 260 bytes"},
		"no fingerprint":      {func(r *wirepb.Register) { r.Models[1].Fingerprint = "" }, wire.CodeInvalid, "1 to 260 bytes"},
		"no model":            {func(r *wirepb.Register) { r.Models = nil }, wire.CodeInvalid, "0 models: allowed are 1 to 64"},
		"too many models":     {func(r *wirepb.Register) { r.Models = make([]*wirepb.Model, 65) }, wire.CodeInvalid, "65 models"},
		"a model twice":       {func(r *wirepb.Register) { r.Models[1].Name = "markov" }, wire.CodeInvalid, `"markov" twice`},
		"strange class":       {func(r *wirepb.Register) { r.Models[0].Class = "exact\n" }, wire.CodeInvalid, "printed"},
		"long fingerprint":    {func(r *wirepb.Register) { r.Models[0].Fingerprint = strings.Repeat("f", 300) }, wire.CodeInvalid, "260 bytes"},
	} {
		r := good()
		c.change(r)
		_, err := described(r, from, wire.PeerVersions(0))
		if e := new(wire.Error); !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.words) || len(e.Message) > 500 {
			t.Errorf("%s: got %v, want %s: … %s", name, err, c.code, c.words)
		}
	}
}

// TestVersions has directors and workers of several releases meet.
func TestVersions(t *testing.T) {
	from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4000}
	for name, c := range map[string]struct {
		own            wire.Versions
		oldest, newest uint32
		want           uint32
		words          string // if there is none in common
	}{
		"of the same release":          {wire.PeerVersions(0), 3, 3, 3, ""},
		"a director of many":           {wire.Versions{Oldest: 2, Newest: 4}, 0, 3, 3, ""}, // the worker says no oldest one
		"a newer worker":               {wire.PeerVersions(0), 3, 5, 3, ""},
		"an older worker":              {wire.PeerVersions(0), 0, 1, 0, "worker speaks version 1, this director 3"},
		"a worker that is much newer":  {wire.PeerVersions(0), 4, 5, 0, "worker speaks version 4 to 5, this director 3"},
		"a director that claims less":  {wire.PeerVersions(1), 2, 2, 0, "worker speaks version 2, this director 1"},
		"a director that claims more":  {wire.PeerVersions(3), 2, 2, 0, "worker speaks version 2, this director 3"},
		"a worker that knows one only": {wire.Versions{Oldest: 1, Newest: 3}, 0, 4, 0, "worker speaks version 4, this director 1 to 3"},
		"a worker that says nothing":   {wire.PeerVersions(0), 0, 0, 0, "worker speaks version 0, this director 3"},
		"a worker that is confused":    {wire.PeerVersions(0), 2, 1, 0, "worker speaks version 2 to 1, this director 3"},
	} {
		r := &wirepb.Register{
			Version: c.newest, OldestVersion: c.oldest, Worker: "worker-a", Instance: "1", UserAddr: ":62001", MgmtAddr: ":63001", Capacity: 1,
			Models: []*wirepb.Model{{Name: "m", Fingerprint: "f"}},
		}
		w, err := described(r, from, c.own)
		if c.want != 0 {
			if err != nil || w.Version != c.want {
				t.Errorf("%s: %+v, %v", name, w, err)
			}
			continue
		}
		if e := new(wire.Error); !errors.As(err, &e) || e.Code != wire.CodeVersion || e.Message != c.words {
			t.Errorf("%s: %v, want %s", name, err, c.words)
		}
	}
}
