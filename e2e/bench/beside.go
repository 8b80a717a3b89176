package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/e2e/internal/cluster"
	"github.com/connswap/connswap/shared/identity"
)

// relayDefault is the growth from 100 to 10,000 streams, ten of each client, and flat out.
const relayDefault = "100/10/50,1000/100/50,10000/1000/5,64/8/0"

// systemsDefault are what is compared: the project, and the relays that it is divided by. connswap=DIR is the project
// with another build of the director.
const systemsDefault = "connswap,quic,grpc"

// beside compares the project with bare relays.
func (o options) beside(ctx context.Context, r *report) error {
	loads, err := parseAll(o.relays, part.ParseLoad)
	if err != nil {
		return fmt.Errorf("-relay: %w", err)
	}
	return o.compare(ctx, r, contest{class: "relay", systems: o.systems, measures: relayMeasures, assemble: o.assemble}, loads)
}

func parseAll[T any](texts []string, parse func(string) (T, error)) (all []T, err error) {
	for _, text := range texts {
		one, err := parse(text)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (o options) assemble(ctx context.Context, name string, load part.Load) (*system, error) {
	s := &system{}
	name, bin, _ := strings.Cut(name, "=")
	var err error
	if name == "connswap" {
		err = s.assembleOwn(ctx, cmp.Or(bin, o.bin), load)
	} else {
		err = s.assembleRelay(ctx, name, load)
	}
	if err != nil {
		s.stop()
	}
	return s, err
}

func (s *system) assembleOwn(ctx context.Context, bin string, load part.Load) error {
	target, err := s.startOwn(ctx, bin, load)
	if err != nil {
		return err
	}
	s.client, err = s.start(ctx, "connswap/client", part.Setup{Load: load, Certs: filepath.Join(s.dir, "certs"), Target: target})
	return err
}

// startOwn starts the project, with a director that lets there be as many streams as the relays do. It returns where clients find it.
func (s *system) startOwn(ctx context.Context, bin string, load part.Load) (target string, err error) {
	c, err := start(bin, "CONNECTION_SWAP_LOG_LEVEL=warn",
		fmt.Sprintf("CONNECTION_SWAP_DIRECTOR_MAX_SESSIONS=%d", max(10_000, load.Streams)))
	if err != nil {
		return "", err
	}
	s.ends, s.director, s.dir = append(s.ends, c.Stop), c.Director, c.Dir
	s.worker, err = s.start(ctx, "connswap/worker", part.Setup{
		Load: load, Certs: filepath.Join(c.Dir, "certs"),
		Listen: []string{cluster.Addr(c.Ports[2]), cluster.Addr(c.Ports[3])}, Target: cluster.Addr(c.Ports[1]),
	})
	if err != nil {
		return "", err
	}
	return c.Addr(), c.Await(ctx, "a")
}

func (s *system) assembleRelay(ctx context.Context, name string, load part.Load) error {
	if err := s.place(); err != nil {
		return err
	}
	setup := part.Setup{Load: load, Certs: filepath.Join(s.dir, "certs")}
	if _, err := identity.EnsureDevelopment(setup.Certs, time.Now()); err != nil {
		return err
	}
	ports, err := cluster.FreePorts(2)
	if err != nil {
		return err
	}
	setup.Listen = []string{cluster.Addr(ports[0])}
	if s.worker, err = s.start(ctx, name+"/worker", setup); err != nil {
		return err
	}
	setup.Listen, setup.Target = []string{cluster.Addr(ports[1])}, cluster.Addr(ports[0])
	relay, err := s.start(ctx, name+"/relay", setup)
	if err != nil {
		return err
	}
	s.director = relay.Cmd
	setup.Listen, setup.Target = nil, cluster.Addr(ports[1])
	s.client, err = s.start(ctx, name+"/client", setup)
	return err
}
